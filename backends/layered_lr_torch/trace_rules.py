"""What each of torch's functions is in the vocabulary of a traced model: one operator, for the functions in ``RULES``.

Names are those of torch's C++ functions and methods, without underscores around them. A rule takes what the function
gave, as a fake tensor, and the function's own arguments. It returns the operator and its arguments by name. It returns
a tensor where the function gives the numbers of an argument, and None and the reason where the graph cannot say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch

from layered_lr.models.graph_operators import BINARY, UNARY
from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_names import IGNORED

Made: TypeAlias = Any
"""What a rule returns: ``(operator, arguments)``, a tensor, or ``(None, reason)``."""

Rule: TypeAlias = Callable[..., Made]


def promote(name: str, args: Sequence[Any]) -> tuple[Any, ...]:
    """Bring the tensors among a function's first arguments to the dtype that torch computes in.

    A constant without axes becomes a number.
    """
    first = 1 if name == "where" else 0
    pair = list(args[first : first + 2])
    if len(pair) < 2:
        return tuple(args)
    common = torch.result_type(*pair)
    if name in ("div", "atan2") and not common.is_floating_point:
        common = torch.get_default_dtype()
    if name.startswith("logical_"):
        common = torch.bool
    cast = []
    for value in pair:
        if isinstance(value, torch.Tensor) and value.dtype != common:
            value = value.to(common)
        cast.append(value)
    return (*args[:first], *cast, *args[first + 2 :])


def plain_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put the first argument in front, if it was given by its name, and leave devices out."""
    named = {key: value for key, value in kwargs.items() if key not in (*IGNORED, "device", "requires_grad")}
    for key in ("input", "self"):
        if key in named:
            args = (named.pop(key), *args)
    return tuple(args), named


def list_axes(dim: Any, rank: int) -> tuple[int, ...]:
    """Return axes counted from 0; all of them for None or none."""
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return tuple(range(rank))
    axes = [dim] if isinstance(dim, int) else dim
    return tuple(axis % max(rank, 1) for axis in axes)


def _sizes(value: Any, count: int) -> tuple[int, ...]:
    """Return a number for each spatial axis."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * count if len(values) == 1 else values)


def _unary(name: str) -> Rule:
    return lambda out, x: (name, {"x": x})


def _rounded(name: str) -> Rule:
    return lambda out, x: (name, {"x": x}) if x.is_floating_point() else x


def _binary(name: str) -> Rule:
    def rule(out: Tensor, x: Any, other: Any, *, alpha: float = 1, rounding_mode: str | None = None) -> Made:
        if alpha != 1:
            return None, f"calls {name} with alpha"
        if rounding_mode not in (None, "floor"):
            return None, f"calls {name} with rounding_mode={rounding_mode!r}"
        if name == "pow" and isinstance(other, torch.Tensor) and not out.is_floating_point():
            return None, "raises whole numbers to powers that are in a tensor"
        if isinstance(other, bool) and isinstance(x, torch.Tensor) and x.dtype != torch.bool:
            other = int(other)
        operator = "floor_divide" if rounding_mode == "floor" else name
        if not isinstance(x, torch.Tensor):
            return operator, {"x": torch.full((), x, dtype=other.dtype), "y": other}
        return operator, {"x": x, "y": other}

    return rule


def _reshape(out: Tensor, x: Tensor, *_: Any, **__: Any) -> Made:
    if out.dtype != x.dtype:
        return None, f"takes the bits of {x.dtype} for {out.dtype}"
    return x if out.shape == x.shape else ("reshape", {"x": x, "shape": tuple(out.shape)})


def _permuted(find: Callable[..., Sequence[int]]) -> Rule:
    def rule(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Made:
        axes = tuple(axis % max(x.dim(), 1) for axis in find(x.dim(), *args, **kwargs))
        return x if axes == tuple(range(x.dim())) else ("permute", {"x": x, "axes": axes})

    return rule


def _all_axes(rank: int, *dims: Any, **named: Any) -> Sequence[int]:
    given = dims or (named["dims"],)
    return list(given[0]) if isinstance(given[0], tuple | list) else list(given)


def _two_axes(rank: int, dim0: int = 0, dim1: int = 0, *, axis0: int = 0, axis1: int = 0) -> Sequence[int]:
    dim0, dim1 = dim0 or axis0, dim1 or axis1  # as swapaxes has them
    axes = list(range(rank))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return axes


def _last_two(rank: int) -> Sequence[int]:
    return _two_axes(rank, -1, -2) if rank > 1 else range(rank)


def _moved(rank: int, source: Any, destination: Any) -> Sequence[int]:
    sources, destinations = list_axes(source, rank), list_axes(destination, rank)
    rest = iter([axis for axis in range(rank) if axis not in sources])
    taken = dict(zip(destinations, sources, strict=True))
    return [taken[axis] if axis in taken else next(rest) for axis in range(rank)]


def _expand(out: Tensor, x: Tensor, *_: Any, **__: Any) -> Made:
    return x if out.shape == x.shape else ("expand", {"x": x, "shape": tuple(out.shape)})


def _cast(out: Tensor, x: Any, *_: Any, **__: Any) -> Made:
    return x if out.dtype == x.dtype else ("cast", {"x": x, "dtype": out.dtype})


def _convolution(
    out: Tensor, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Made:  # fmt: skip
    count = weight.dim() - 2
    if x.dim() != weight.dim():
        return None, "convolves an input without a batch axis"
    if isinstance(padding, str):
        return None, f"convolves with padding={padding!r} and a stride"
    sizes = {"stride": stride, "padding": padding, "dilation": dilation}
    given = {key: _sizes(value, count) for key, value in sizes.items()}
    return "conv", {"x": x, "weight": weight, "bias": bias, "groups": groups, **given}


def _transposed_convolution(
    out: Tensor, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Made:  # fmt: skip
    if x.dim() != weight.dim():
        return None, "convolves an input without a batch axis"
    sizes = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    given = {key: _sizes(value, weight.dim() - 2) for key, value in sizes.items()}
    return "conv_transpose", {"x": x, "weight": weight, "bias": bias, "groups": groups, **given}


def _batch_norm(
    out: Tensor, x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float,
    eps: float, cudnn_enabled: bool = True,
) -> Made:  # fmt: skip
    values = {"x": x, "mean": mean, "variance": variance, "weight": weight, "bias": bias, "training": training}
    return "batch_norm", {**values, "momentum": momentum, "eps": eps}


def _layer_norm(
    out: Tensor, x: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Made:  # fmt: skip
    return "layer_norm", {"x": x, "axes": len(normalized_shape), "weight": weight, "bias": bias, "eps": eps}


def _group_norm(
    out: Tensor, x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Made:  # fmt: skip
    return "group_norm", {"x": x, "groups": groups, "weight": weight, "bias": bias, "eps": eps}


def _max_pool(count: int) -> Rule:
    def rule(
        out: Tensor, x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Made:  # fmt: skip
        if x.dim() != count + 2:
            return None, "pools an input without a batch axis"
        stride = kernel if stride is None or stride == () or stride == [] else stride
        sizes = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        return "max_pool", {"x": x, "ceil": ceil_mode, **{key: _sizes(value, count) for key, value in sizes.items()}}

    return rule


def _avg_pool(count: int) -> Rule:
    def rule(
        out: Tensor, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Made:  # fmt: skip
        if x.dim() != count + 2:
            return None, "pools an input without a batch axis"
        stride = kernel_size if stride is None or stride == () or stride == [] else stride
        sizes = {"kernel": kernel_size, "stride": stride, "padding": padding}
        given = {key: _sizes(value, count) for key, value in sizes.items()}
        flags = {"ceil": ceil_mode, "counts_padding": count_include_pad, "divisor": divisor_override}
        return "avg_pool", {"x": x, **given, **flags}

    return rule


def _adaptive(operator: str, count: int) -> Rule:
    def rule(out: Tensor, x: Tensor, output_size: Any) -> Made:
        if x.dim() != count + 2:
            return None, "pools an input without a batch axis"
        return operator, {"x": x, "size": tuple(out.shape[2:])}

    return rule


def _reduction(operator: str) -> Rule:
    def rule(
        out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None
    ) -> Made:
        axes = list_axes(axis if dim is None else dim, x.dim())
        return operator, {"x": x, "axes": axes, "keepdim": keepdim}

    return rule


def _var(
    out: Tensor, x: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Made:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased in (None, True) else 0
    return "var", {"x": x, "axes": list_axes(dim, x.dim()), "correction": correction, "keepdim": keepdim}


def _arg(operator: str) -> Rule:
    def rule(out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Made:
        return operator, {"x": x, "axis": dim % x.dim(), "keepdim": keepdim}

    return rule


def _softmax(operator: str) -> Rule:
    def rule(out: Tensor, x: Tensor, dim: int, dtype: Any = None) -> Made:
        return operator, {"x": x, "axis": dim % max(x.dim(), 1)}

    return rule


def _cat(out: Tensor, tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Made:
    dim = (dim if axis is None else axis) % out.dim()
    parts = tuple(part for part in tensors if part.shape != (0,))
    return parts[0] if len(parts) == 1 else ("cat", {"tensors": parts, "axis": dim})


def _pad(out: Tensor, x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Made:
    if not any(pad):
        return x
    return "pad", {"x": x, "widths": tuple(pad), "mode": mode, "value": 0.0 if value is None else value}


def _roll(out: Tensor, x: Tensor, shifts: Any, dims: Any = ()) -> Made:
    given = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    return "roll", {"x": x, "shifts": given, "axes": list_axes(dims, x.dim())}


def _dropout(out: Tensor, x: Tensor, p: float = 0.5, training: bool = True, *, train: bool | None = None) -> Made:
    training = training if train is None else train
    return x if p == 0 else ("dropout", {"x": x, "p": p, "training": training, "mask_shape": tuple(out.shape)})


def _feature_dropout(out: Tensor, x: Tensor, p: float = 0.5, training: bool = True) -> Made:
    shape = (*out.shape[:2], *(1 for _ in out.shape[2:]))
    return x if p == 0 else ("dropout", {"x": x, "p": p, "training": training, "mask_shape": shape})


def _bernoulli(out: Tensor, x: Tensor, p: Any = None, *, generator: Any = None) -> Made:
    if not isinstance(p, float | int) or generator is not None:
        return None, "draws from a distribution with several probabilities, or from a generator of its own"
    return "bernoulli", {"shape": tuple(out.shape), "p": p, "dtype": out.dtype}


def _uniform(out: Tensor, *_: Any, generator: Any = None, **__: Any) -> Made:
    if generator is not None:
        return None, "draws from a generator of its own"
    return "uniform", {"shape": tuple(out.shape), "dtype": out.dtype}


def _einsum(out: Tensor, equation: str, *operands: Any, **_: Any) -> Made:
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    for part in equation.replace(" ", "").partition("->")[0].split(","):
        letters = part.replace(".", "")
        if len(set(letters)) < len(letters):  # OneFlow 0.9 returns gradients of a wrong shape
            return None, f"calls einsum with an axis twice in one tensor ({part!r})"
    return "einsum", {"equation": equation, "tensors": tuple(tensors)}


def _index_select(out: Tensor, x: Tensor, dim: int, index: Tensor) -> Made:
    return "index_select", {"x": x, "axis": dim % max(x.dim(), 1), "index": index}


def _where(out: Tensor, condition: Tensor, x: Any, y: Any) -> Made:
    if not isinstance(x, torch.Tensor) and not isinstance(y, torch.Tensor):
        x = torch.full((), x, dtype=out.dtype)
    return "where", {"condition": condition, "x": x, "y": y}


def _slice(out: Tensor, x: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Made:
    if out.shape == x.shape and step == 1:
        return x
    return "slice", {"x": x, "axis": dim % x.dim(), "start": start, "stop": stop, "step": step}


_MODES: Final = ("bilinear", "nearest", "bicubic")  # by the numbers that torch's C++ function takes
_PADDINGS: Final = ("zeros", "border", "reflection")


def _sample_grid(out: Tensor, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Made:
    given = {"mode": _MODES[mode], "padding": _PADDINGS[padding], "aligned": align_corners}
    return "grid_sample", {"x": x, "grid": grid, **given}


RULES: Final[Mapping[str, Rule]] = {
    **{name: _unary(name) for name in UNARY},
    **{name: _rounded(name) for name in ("ceil", "floor", "round", "trunc")},
    **{name: _binary(name) for name in BINARY},
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as",
                     "ravel"), _reshape),
    "permute": _permuted(_all_axes),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _permuted(_two_axes)),
    **dict.fromkeys(("get:mT", "get:mH", "get:T", "get:H", "t", "adjoint"), _permuted(_last_two)),
    **dict.fromkeys(("movedim", "moveaxis"), _permuted(_moved)),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("to", "type_as", "type", "float", "double", "half", "bfloat16", "long", "int", "short", "char",
                     "bool", "byte"), _cast),
    **dict.fromkeys(("contiguous", "clone", "cpu", "alias", "positive"), lambda out, x, **_: x),
    **dict.fromkeys(("detach", "get:data"), lambda out, x: ("detach", {"x": x})),
    **dict.fromkeys(("empty", "new_empty", "empty_like"),
                    lambda out, *_, **__: ("full", {"shape": tuple(out.shape), "value": 0, "dtype": out.dtype})),
    "gelu": lambda out, x, *, approximate="none": ("gelu", {"x": x, "approximate": approximate}),
    "leaky_relu": lambda out, x, negative_slope=0.01: ("leaky_relu", {"x": x, "slope": negative_slope}),
    "hardtanh": lambda out, x, min_val=-1.0, max_val=1.0: ("hardtanh", {"x": x, "low": min_val, "high": max_val}),
    "relu6": lambda out, x: ("hardtanh", {"x": x, "low": 0.0, "high": 6.0}),
    "softplus": lambda out, x, beta=1, threshold=20: ("softplus", {"x": x, "beta": beta, "threshold": threshold}),
    "prelu": lambda out, x, weight: ("prelu", {"x": x, "weight": weight}),
    "where": _where,
    "linear": lambda out, x, weight, bias=None: ("linear", {"x": x, "weight": weight, "bias": bias}),
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot", "vdot"), lambda out, x, y: ("matmul", {"x": x, "y": y})),
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    "im2col": lambda out, x, kernel, dilation, padding, stride: (
        "unfold", {"x": x, "kernel": _sizes(kernel, 2), "dilation": _sizes(dilation, 2),
                   "padding": _sizes(padding, 2), "stride": _sizes(stride, 2)}),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    **{f"max_pool{count}d": _max_pool(count) for count in (1, 2, 3)},
    **{f"avg_pool{count}d": _avg_pool(count) for count in (1, 2, 3)},
    **{f"adaptive_avg_pool{count}d": _adaptive("adaptive_avg_pool", count) for count in (1, 2, 3)},
    **{name: _reduction(name) for name in ("sum", "mean", "amax", "amin")},
    "var": _var,
    **{name: _arg(name) for name in ("argmax", "argmin")},
    **{name: _softmax(name) for name in ("softmax", "log_softmax")},
    "cumsum": lambda out, x, dim, dtype=None: ("cumsum", {"x": x, "axis": dim % max(x.dim(), 1)}),
    "cumprod": lambda out, x, dim, dtype=None: ("cumprod", {"x": x, "axis": dim % max(x.dim(), 1)}),
    "grid_sampler": _sample_grid,
    "cat": _cat,
    "slice_along": _slice,
    "with_gradient_of": lambda out, x, values: ("keep_gradient", {"x": x, "values": values}),
    "clamp_between": lambda out, x, low, high: ("clamp", {"x": x, "low": low, "high": high}),
    "plain_elu": lambda out, x, alpha: ("elu", {"x": x, "alpha": alpha}),
    "adaptive_max": _adaptive("adaptive_max_pool", 2),
    "flip": lambda out, x, *dims, **named: (
        "flip", {"x": x, "axes": list_axes(_all_axes(x.dim(), *dims, **named), x.dim())}),
    "roll": _roll,
    "pad": _pad,
    "index_select": _index_select,
    "gather": lambda out, x, dim, index, sparse_grad=False: (
        "gather", {"x": x, "axis": dim % max(x.dim(), 1), "index": index}),
    "scatter_sum": lambda out, x, axis, index, source: (
        "scatter_add", {"x": x, "axis": axis, "index": index, "source": source}),
    "dropout": _dropout,
    "feature_dropout": _feature_dropout,
    "bernoulli": _bernoulli,
    **dict.fromkeys(("rand", "rand_like", "uniform"), _uniform),
}  # fmt: skip
