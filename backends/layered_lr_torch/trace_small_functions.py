"""Functions of torch that a line or two of others write, for the tracing of models: what ``trace_composites`` holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch.nn import functional as F

from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_names import Refusal

_LONGEST_PRODUCT: Final = 64
"""Numbers along an axis up to which a product is written out, one multiplication after the other."""


def _nan_to_num(x: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    if not x.is_floating_point():
        return x
    limits = torch.finfo(x.dtype)
    x = torch.where(torch.isnan(x), 0.0 if nan is None else nan, x)
    x = torch.where(x == math.inf, limits.max if posinf is None else posinf, x)
    return torch.where(x == -math.inf, limits.min if neginf is None else neginf, x)


def _nanmean(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    is_nan = torch.isnan(x).to(x.dtype)
    return _nansum(x, dim, keepdim) / _nansum(1 - is_nan, dim, keepdim)


def _nansum(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    dim = list(range(x.dim())) if dim is None else dim
    return torch.where(torch.isnan(x), 0, x).sum(dim, keepdim)


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    distance = torch.where(x == y, 0, x - y)  # also of two that are infinite
    return torch.maximum(x, y) + (-distance.abs()).exp().log1p()


def _sinc(x: Tensor) -> Tensor:
    angle = torch.where(x == 0, 1, x * math.pi)
    return torch.where(x == 0, 1, angle.sin() / angle)


def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
        return (x / (1 - x)).log()
    is_outside, is_end = (x < 0) | (x > 1), (x == 0) | (x == 1)
    within, end = torch.where(is_outside | is_end, 0.5, x), torch.where(is_end, x, 0.5) + 0.0  # no -0.0
    # The gradient outside is NaN too, as that of a root of a negative number; at the ends it is infinite.
    made = torch.where(is_outside, torch.where(is_outside, x * (1 - x), 1).sqrt(), (within / (1 - within)).log())
    return torch.where(is_end, end.log() - (1 - end).log(), made)


def _count(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Count what is not zero."""
    ones = x.to(torch.bool).to(torch.int64)
    return ones.sum() if dim is None else ones.sum(dim, keepdim)


def _any(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    return NotImplemented if x.dtype == torch.uint8 else _count(x, dim, keepdim) > 0


def _all(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    return NotImplemented if x.dtype == torch.uint8 else _count(torch.logical_not(x), dim, keepdim) == 0


def _prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    if dtype not in (None, x.dtype) or not x.is_floating_point() or not x.shape[dim]:
        return NotImplemented
    if x.shape[dim] > _LONGEST_PRODUCT:
        return Refusal(
            f"calls prod of {x.shape[dim]} numbers ({_LONGEST_PRODUCT} are the most)",
            "Take the product of parts, or train on a torch backend.",
        )
    product, *others = torch.split(x, 1, dim)
    for other in others:
        product = product * other
    return product if keepdim else product.squeeze(dim)


def _arg(name: str) -> Callable[..., Any]:
    def composite(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is not None:
            return NotImplemented
        place = getattr(torch, name)(x.flatten(), 0)
        return place.reshape([1] * x.dim()) if keepdim else place

    return composite


def _roll(x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    """Roll all numbers as one row, where no axis is given."""
    if dims not in (None, (), []):
        return NotImplemented
    return x.flatten().roll(shifts, 0).reshape(x.shape)


def _join(least_axes: int, axis: Callable[[int], int]) -> Callable[..., Tensor]:
    """Make a function that joins tensors along an axis, after each has got axes enough."""

    def composite(tensors: Sequence[Tensor]) -> Tensor:
        made = [_with_axes(tensor, least_axes) for tensor in tensors]
        return torch.cat(made, axis(made[0].dim()))

    return composite


def _with_axes(x: Tensor, count: int) -> Tensor:
    """Do what ``atleast_2d`` and ``atleast_3d`` do."""
    while x.dim() < min(count, 2):
        x = x.unsqueeze(0)
    return x.unsqueeze(-1) if x.dim() < count else x


def _stack_columns(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1, 1) if x.dim() < 2 else x for x in tensors], 1)


def _rotate(x: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    first, second = dims
    match k % 4:
        case 0:
            return x.clone()
        case 1:
            return x.flip(second).transpose(first, second)
        case 2:
            return x.flip(first, second)
        case _:
            return x.flip(first).transpose(first, second)


def _diff(x: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    if prepend is not None or append is not None:
        return NotImplemented
    for _ in range(n):
        length = x.shape[dim] - 1
        x = x.narrow(dim, 1, length) - x.narrow(dim, 0, length)
    return x


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Take windows along one axis; the numbers of a window are the last axis."""
    axis = dimension % x.dim()
    count = (x.shape[axis] - size) // step + 1
    places = torch.arange(count).unsqueeze(1) * step + torch.arange(size)
    windows = x.index_select(axis, places.flatten())
    return windows.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]).movedim(axis + 1, -1)


def _fold(
    x: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Add up overlapping patches, as a transposed convolution with kernels of a single 1 does."""
    sizes = (output_size, kernel_size, dilation, padding, stride)
    wanted, kernel, spread, around, steps = ((each,) * 2 if isinstance(each, int) else tuple(each) for each in sizes)
    reach = [step * (side - 1) + 1 for side, step in zip(kernel, spread, strict=True)]
    counts = [(wanted[i] + 2 * around[i] - reach[i]) // steps[i] + 1 for i in (0, 1)]
    left = [wanted[i] - ((counts[i] - 1) * steps[i] - 2 * around[i] + reach[i]) for i in (0, 1)]
    places = kernel[0] * kernel[1]
    ones = torch.eye(places, dtype=x.dtype).reshape(places, 1, *kernel)
    patches = x.reshape(-1, places, *counts)
    made = F.conv_transpose2d(patches, ones, None, steps, around, left, 1, spread)
    channels = x.shape[-2] // places
    return made.reshape(channels, *wanted) if x.dim() == 2 else made.reshape(-1, channels, *wanted)


def _pairwise_distance(x: Tensor, y: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(x - y + eps, p, dim=-1, keepdim=keepdim)
    return distance


SMALL_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "isinf": lambda x: x.abs() == math.inf,
    "isfinite": lambda x: x.abs() < math.inf,
    "isposinf": lambda x: x == math.inf,
    "isneginf": lambda x: x == -math.inf,
    "nan_to_num": _nan_to_num,
    "nansum": _nansum,
    "nanmean": _nanmean,
    "frac": lambda x: x - x.trunc(),
    "logaddexp": _logaddexp,
    "sinc": _sinc,
    "logit": _logit,
    "any": _any,
    "all": _all,
    "count_nonzero": _count,
    "prod": _prod,
    "argmax": _arg("argmax"),
    "argmin": _arg("argmin"),
    "roll": _roll,
    "vstack": _join(2, lambda rank: 0),
    "hstack": _join(1, lambda rank: min(rank - 1, 1)),
    "dstack": _join(3, lambda rank: 2),
    "column_stack": _stack_columns,
    "rot90": _rotate,
    "fliplr": lambda x: x.flip(1),
    "flipud": lambda x: x.flip(0),
    "diff": _diff,
    "unfold": _unfold,
    "col2im": _fold,
    "pairwise_distance": _pairwise_distance,
}
