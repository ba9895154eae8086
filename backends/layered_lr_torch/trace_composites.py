"""Functions of torch that the vocabulary of a traced model has no operator for, written with functions that it has.

Each of them runs while a ``Recorder`` records, in the place of torch's own. It returns ``NotImplemented`` where it does
not know the form in which it was called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_geometry import affine_grid, pairwise_distances
from layered_lr_torch.trace_indices import assign, get_item, narrow, select, slice_along
from layered_lr_torch.trace_layers import (
    bilinear,
    cosine_similarity,
    instance_norm,
    linalg_norm,
    logsumexp,
    pad_as_asked,
    rms_norm,
    root,
    scaled_dot_product_attention,
    upsample,
    vector_norm,
    weight_norm,
)
from layered_lr_torch.trace_losses import LOSSES, with_gradient_of
from layered_lr_torch.trace_names import Refusal
from layered_lr_torch.trace_recurrent import RECURRENT
from layered_lr_torch.trace_scattering import SCATTERING, fill_diagonal, scatter_sum
from layered_lr_torch.trace_small_functions import SMALL_FUNCTIONS

Composite = Callable[..., Any]


def _addmm(x: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = first @ second
    product = product if alpha == 1 else product * alpha
    return product + (x if beta == 1 else x * beta)


def _split(x: Tensor, sizes: Any = None, dim: int = 0, *, split_sizes: Any = None) -> Any:
    sizes = split_sizes if sizes is None else sizes
    length = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)] or [0]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return tuple(
        slice_along(x, dim % x.dim(), start, start + size, 1) for start, size in zip(starts, sizes, strict=True)
    )


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> Any:
    return _split(x, max(1, -(-x.shape[dim] // chunks)), dim)


def _tensor_split(x: Tensor, sections: Any = None, dim: int = 0, *, indices: Any = None) -> Any:
    sections = indices if sections is None else sections
    length = x.shape[dim]
    if isinstance(sections, int):
        small, larger = divmod(length, sections)
        return _split(x, [small + (place < larger) for place in range(sections)], dim)
    if isinstance(sections, torch.Tensor):
        return NotImplemented
    edges = [0, *(range(length)[:edge].stop for edge in sections), length]
    return tuple(slice_along(x, dim % x.dim(), start, max(start, stop), 1) for start, stop in pairwise(edges))


def _unbind(x: Tensor, dim: int = 0) -> Any:
    return tuple(x.select(dim, place) for place in range(x.shape[dim]))


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    rank = tensors[0].dim() + 1
    return torch.cat([tensor.unsqueeze(dim % rank) for tensor in tensors], dim % rank)


def _repeat(x: Tensor, *sizes: Any, repeats: Any = None) -> Any:
    sizes = sizes or (repeats,)
    times = list(sizes[0]) if isinstance(sizes[0], tuple | list) else list(sizes)
    whole = x.reshape([1] * (len(times) - x.dim()) + list(x.shape))
    for axis, time in enumerate(times):
        if time != 1:
            shape = list(whole.shape)
            spread = whole.unsqueeze(axis).expand(*shape[:axis], time, *shape[axis:])
            whole = spread.reshape(*shape[:axis], time * shape[axis], *shape[axis + 1 :])
    return whole


def _tile(x: Tensor, *sizes: Any, dims: Any = None) -> Any:
    sizes = sizes or (dims,)
    times = list(sizes[0]) if isinstance(sizes[0], tuple | list) else list(sizes)
    return _repeat(x, [1] * (x.dim() - len(times)) + times)


def _repeat_interleave(x: Tensor, repeats: Any, dim: int | None = None, **_: Any) -> Any:
    if not isinstance(repeats, int):
        return NotImplemented
    if dim is None:
        x, dim = x.flatten(), 0
    dim %= x.dim()
    spread = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], repeats, *x.shape[dim + 1 :])
    return spread.reshape(*x.shape[:dim], x.shape[dim] * repeats, *x.shape[dim + 1 :])


def _extreme(name: str) -> Composite:
    def composite(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return getattr(torch, f"a{name}")(x)
        if isinstance(dim, torch.Tensor):
            return getattr(torch, f"{name}imum")(x, dim)
        places = getattr(torch, f"arg{name}")(x, dim, True)
        values = torch.gather(x, dim, places)
        if not keepdim:
            values, places = values.squeeze(dim), places.squeeze(dim)
        return getattr(torch.return_types, name)((values, places))

    return composite


def _gradient_at(limit: Any) -> float:
    """The gradient that this version of torch gives a number that is exactly at a limit of ``clamp``."""
    with torch.enable_grad():
        x = torch.ones(1, requires_grad=True)
        (gradient,) = torch.autograd.grad(torch.clamp(x, min=limit), x)
    return gradient.item()


_AT_NUMBER: Final = _gradient_at(1.0)  # 0 with torch 2.14
_AT_TENSOR: Final = _gradient_at(torch.ones(1))  # 0.5 with torch 2.14, as with maximum


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Any:
    for limit in (min, max):  # whole numbers between fractions become fractions
        x = x if limit is None else x.to(torch.result_type(x, limit))
    if isinstance(min, torch.Tensor) or isinstance(max, torch.Tensor):
        for limit, choose, is_beyond in ((min, torch.maximum, torch.lt), (max, torch.minimum, torch.gt)):
            if limit is not None:
                limit = (limit if isinstance(limit, torch.Tensor) else torch.as_tensor(limit)).to(x.dtype)
                x = torch.where(is_beyond(x, limit), limit, x) if _AT_TENSOR == 1 else choose(x, limit)
        return x
    if _AT_NUMBER == 1 or not x.is_floating_point():
        return clamp_between(x, min, max)
    for limit, has_reached in ((min, torch.le), (max, torch.ge)):
        x = x if limit is None else torch.where(has_reached(x, limit), limit, x)
    return x


def clamp_between(x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Clamp between two numbers; a recorder records it as one operator."""
    if has_torch_function((x,)):
        recorded: Tensor = handle_torch_function(clamp_between, (x,), x, low, high)
        return recorded
    return torch.clamp(x, low, high)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    first, second = x.chunk(2, dim)
    return first * second.sigmoid()


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """CELU with torch's gradient, in which 1/alpha is that of alpha as float32 holds it."""
    below = torch.where(x > 0, 0, x)
    bent, scale = (below / alpha).expm1() * alpha, 1 / float(np.float32(alpha))
    if scale != 1 / alpha:
        has_its_gradient = (below * scale).expm1() * alpha
        bent = has_its_gradient + (bent - has_its_gradient).detach()
    return torch.where(x > 0, x, bent)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    if scale != 1 or input_scale != 1:
        return NotImplemented
    return plain_elu(x, alpha)


def plain_elu(x: Tensor, alpha: float) -> Tensor:
    """ELU without torch's hidden scales; a recorder records it as one operator."""
    if has_torch_function((x,)):
        recorded: Tensor = handle_torch_function(plain_elu, (x,), x, alpha)
        return recorded
    return F.elu(x, alpha)


def _triangle(keep: Callable[[Tensor, int], Tensor]) -> Composite:
    def composite(x: Tensor, diagonal: int = 0) -> Tensor:
        kept = keep(torch.ones(x.shape[-2:], dtype=torch.bool), diagonal)
        return torch.where(kept, x, 0)

    return composite


def _embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Any:
    if scale_grad_by_freq or sparse:
        setting = "scale_grad_by_freq" if scale_grad_by_freq else "sparse"
        return Refusal(
            f"looks up an embedding with {setting}=True, which changes its gradient",
            "Leave that out, or train on a torch backend.",
        )
    if padding_idx >= 0:  # this row is looked up, but gets no gradient
        padding = (torch.arange(weight.shape[0]) == padding_idx).unsqueeze(1)
        weight = torch.where(padding, weight.detach(), weight)
    rows = weight.index_select(0, indices.reshape(-1).long())
    return rows.reshape(*indices.shape, weight.shape[1])


def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    *batch, channels, height, width = x.shape
    r, rank = upscale_factor, len(batch)
    parts = x.reshape(*batch, channels // (r * r), r, r, height, width)
    order = [*range(rank), rank, rank + 3, rank + 1, rank + 4, rank + 2]
    return parts.permute(order).reshape(*batch, channels // (r * r), height * r, width * r)


def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    *batch, channels, height, width = x.shape
    r, rank = downscale_factor, len(batch)
    parts = x.reshape(*batch, channels, height // r, r, width // r, r)
    order = [*range(rank), rank, rank + 2, rank + 4, rank + 1, rank + 3]
    return parts.permute(order).reshape(*batch, channels * r * r, height // r, width // r)


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, channels, *rest = x.shape
    return x.reshape(n, groups, channels // groups, *rest).transpose(1, 2).reshape(x.shape).clone()  # no view of x


def _std(*args: Any, **kwargs: Any) -> Tensor:
    return root(torch.var(*args, **kwargs))


def _with_mean(name: str) -> Composite:
    def composite(x: Tensor, dim: Any = None, **kwargs: Any) -> Any:
        dim = list(range(x.dim())) if dim is None else dim
        return getattr(torch, name)(x, dim, **kwargs), torch.mean(x, dim, keepdim=kwargs.get("keepdim", False))

    return composite


def _reversed(name: str) -> Composite:
    return lambda x, other: getattr(torch, name)(
        other if isinstance(other, torch.Tensor) else torch.full((), other, dtype=torch.result_type(x, other)), x
    )


def _rsub(x: Tensor, other: Any, *, alpha: float = 1) -> Any:
    return _reversed("sub")(x if alpha == 1 else x * alpha, other)


def _with_alpha(name: str) -> Composite:
    def composite(x: Any, other: Any, *, alpha: float = 1) -> Any:
        return NotImplemented if alpha == 1 else getattr(torch, name)(x, other * alpha)

    return composite


def _bitwise(name: str) -> Composite:
    """Make a function of the bits of truth values; those of whole numbers are refused."""

    def composite(*values: Any) -> Any:
        tensors = [each if isinstance(each, torch.Tensor) else torch.full((), each) for each in values]
        if any(each.dtype != torch.bool for each in tensors):
            return Refusal(
                f"takes the bits of whole numbers ({name})",
                "Use torch.remainder and comparisons, or train on a torch backend.",
            )
        return getattr(torch, f"logical_{name}")(*tensors)

    return composite


def _div(x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """Divide and round; whole numbers stay whole."""
    if rounding_mode is None or torch.result_type(x, other).is_floating_point:
        return torch.trunc(torch.div(x, other)) if rounding_mode == "trunc" else NotImplemented
    if rounding_mode == "floor":
        return torch.floor_divide(x, other)
    x, other = (each if isinstance(each, torch.Tensor) else torch.as_tensor(each) for each in (x, other))
    return torch.floor_divide(x.abs(), other.abs()) * x.sign() * other.sign()


def _new(value: float) -> Composite:
    def composite(x: Tensor, *size: Any, dtype: Any = None, **_: Any) -> Tensor:
        shape = x.shape if not size else size[0] if isinstance(size[0], tuple | list) else size
        return torch.full(tuple(shape), value, dtype=dtype or x.dtype)

    return composite


def _new_full(x: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return torch.full(tuple(size), fill_value, dtype=dtype or x.dtype)


def _full_like(x: Tensor, fill_value: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return torch.full(x.shape, fill_value, dtype=dtype or x.dtype)


def _summed_as(name: str) -> Composite:
    def composite(x: Tensor, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        if name in ("sum", "cumprod") and dtype is None and not x.is_floating_point():
            dtype = torch.int64
        return NotImplemented if dtype in (None, x.dtype) else getattr(torch, name)(x.to(dtype), *args, **kwargs)

    return composite


def _multiply_chain(*tensors: Any) -> Tensor:
    matrices = list(tensors[0]) if isinstance(tensors[0], tuple | list) else list(tensors)
    product: Tensor = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def adaptive_max(x: Tensor, size: Any) -> Tensor:
    """Adaptive maximum pooling without indices; a recorder records it as one operator."""
    if has_torch_function((x,)):
        recorded: Tensor = handle_torch_function(adaptive_max, (x,), x, size)
        return recorded
    return F.adaptive_max_pool2d(x, size)


RECORDED: Final = (slice_along, clamp_between, plain_elu, adaptive_max, scatter_sum, with_gradient_of)
"""Functions of this library that a recorder records as one operator each."""

COMPOSITES: Final[dict[str, Composite]] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    **{f"conv{count}d": pad_as_asked(count) for count in (1, 2, 3)},
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _addmm),
    "addcmul": lambda x, a, b, *, value=1: x + a * b * value,
    "addcdiv": lambda x, a, b, *, value=1: x + a / b * value,
    "lerp": lambda x, end, weight: x + (end - x) * weight,
    "outer": lambda x, y: x.unsqueeze(1) * y.unsqueeze(0),
    "linalg_vector_norm": vector_norm,
    "linalg_norm": linalg_norm,
    "logsumexp": logsumexp,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    **dict.fromkeys(("chunk", "unsafe_chunk"), _chunk),
    "tensor_split": _tensor_split,
    "unbind": _unbind,
    "stack": _stack,
    **dict.fromkeys(("select", "select_copy"), select),
    **dict.fromkeys(("narrow", "narrow_copy"), narrow),
    "getitem": get_item,
    "repeat": _repeat,
    "tile": _tile,
    "repeat_interleave": _repeat_interleave,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "clamp": _clamp,
    "clamp_min": lambda x, min: _clamp(x, min),
    "clamp_max": lambda x, max: _clamp(x, None, max),
    "threshold": lambda x, threshold, value: torch.where(x <= threshold, value, x),
    "glu": _glu,
    "celu": _celu,
    "elu": _elu,
    "softshrink": lambda x, lambd=0.5: torch.where(
        x > lambd, x - lambd, torch.where(x < -lambd, x + lambd, x * 0)),
    "hardshrink": lambda x, lambd=0.5: torch.where((x > lambd) | (x < -lambd), x, x * 0),
    "masked_fill": lambda x, mask, value: torch.where(mask, value, x),
    "tril": _triangle(torch.tril),
    "triu": _triangle(torch.triu),
    "embedding": _embedding,
    "instance_norm": instance_norm,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    "std": _std,
    "var_mean": _with_mean("var"),
    "std_mean": _with_mean("std"),
    "rsub": _rsub,
    **{f"reversed:{name}": _reversed(name) for name in
       ("add", "sub", "mul", "div", "pow", "matmul", "floor_divide", "remainder", "bitwise_and", "bitwise_or",
        "bitwise_xor")},
    **{f"bitwise_{name}": _bitwise(name) for name in ("and", "or", "xor", "not")},
    "add": _with_alpha("add"),
    "sub": _with_alpha("sub"),
    "div": _div,
    **dict.fromkeys(("new_zeros", "zeros_like"), _new(0)),
    **dict.fromkeys(("new_ones", "ones_like"), _new(1)),
    "new_full": _new_full,
    "full_like": _full_like,
    "sum": _summed_as("sum"),
    "mean": _summed_as("mean"),
    **{name: _summed_as(name) for name in ("cumsum", "cumprod")},
    "softmax": _summed_as("softmax"),
    "log_softmax": _summed_as("log_softmax"),
    "weight_norm": weight_norm,
    **{f"upsample_nearest{rank}d": upsample("nearest", rank, False) for rank in (1, 2, 3)},
    **{f"upsample_nearest_exact{rank}d": upsample("nearest_exact", rank, False) for rank in (1, 2, 3)},
    "upsample_linear1d": upsample("linear", 1, True),
    "upsample_bilinear2d": upsample("linear", 2, True),
    "upsample_trilinear3d": upsample("linear", 3, True),
    "upsample_bicubic2d": upsample("upsample_bicubic2d", 2, True),
    "upsample_bilinear2d_aa": upsample("_upsample_bilinear2d_aa", 2, True),
    "upsample_bicubic2d_aa": upsample("_upsample_bicubic2d_aa", 2, True),
    "rms_norm": rms_norm,
    "cosine_similarity": cosine_similarity,
    "bilinear": bilinear,
    "linalg_multi_dot": _multiply_chain,
    "cdist": pairwise_distances,
    "affine_grid_generator": affine_grid,
    "log10": lambda x: x.log() * (1 / math.log(10)),
    "frobenius_norm": vector_norm,
    "adaptive_max_pool1d": lambda x, size: (
        adaptive_max(x.unsqueeze(2), (1, size if isinstance(size, int) else size[0])).squeeze(2), None),
    "adaptive_max_pool2d": lambda x, size: (adaptive_max(x, size), None),
    **SMALL_FUNCTIONS,
    **SCATTERING,
    **RECURRENT,
    **LOSSES,
}  # fmt: skip


def compute_changed(name: str, args: Sequence[Any], kwargs: Any) -> Any:
    """Compute what the first argument becomes under a function that changes it in place."""
    target, *rest = args
    if name == "setitem":
        return assign(target, *rest)
    if name == "copy":
        return rest[0].to(target.dtype).expand(target.shape)
    if name in ("fill", "zero"):
        value = rest[0] if rest else kwargs.get("value", 0)
        if isinstance(value, torch.Tensor):
            return value.to(target.dtype).expand(target.shape)
        return torch.full(target.shape, value, dtype=target.dtype)
    if name == "fill_diagonal":
        return fill_diagonal(*args, **kwargs)
    for home in (torch.Tensor, torch, torch._C._nn, F):
        function = getattr(home, name, None)
        if function is not None:
            return function(target, *rest, **kwargs)
    return NotImplemented
