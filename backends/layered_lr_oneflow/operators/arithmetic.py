"""Operators of a traced model that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from layered_lr.models.graph_operators import UNARY
from layered_lr_oneflow.oneflow_types import Tensor, TensorType
from layered_lr_oneflow.operators import broadcasting
from layered_lr_oneflow.runtime import flow

_C = flow._C


def make_constant(shape: tuple[int, ...], value: float, dtype: TensorType, like: Tensor) -> Tensor:
    """Make a tensor of one value, also in a graph's trace; where ``like`` is, in all processes if that is global."""
    if like.is_global:  # OneFlow mixes no local tensor with it
        return _C.global_constant(tuple(shape), value, dtype=dtype, placement=like.placement, sbp=[flow.sbp.broadcast])
    return _C.constant(tuple(shape), value, dtype=dtype, device=flow.device(str(like.device)))


def convert(x: Tensor, dtype: str | TensorType) -> Tensor:
    """Bring a tensor to a dtype."""
    wanted = getattr(flow, dtype) if isinstance(dtype, str) else dtype
    return x if x.dtype == wanted else _C.cast(x, dtype=wanted, pin_memory=False)


def detach(x: Tensor) -> Tensor:
    """Give a tensor without its gradient; use this one, and not OneFlow's, wherever it may be a part of another tensor.

    OneFlow's ``detach`` forgets where in the other one's memory such a part begins, so that a view of it (a reshape,
    a slice) reads from the first number on. Its kernels read the right ones, so a copy is right.
    """
    if not (x.is_lazy or x.is_global) and x.storage_offset():  # what runs in a graph is no view
        x = x.clone()
    return x.detach()


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Make a tensor of a number, which is repeated along all axes of ``like``; a tensor stays as it is."""
    return value if isinstance(value, flow.Tensor) else make_constant((1,) * like.ndim, value, like.dtype, like)


def _is_bool(x: Any) -> bool:
    return isinstance(x, flow.Tensor) and x.dtype == flow.bool


def _log2(x: Tensor) -> Tensor:
    return flow.log(x) * (1 / math.log(2))


def _isnan(x: Tensor) -> Tensor:
    return x != x


def _softsign(x: Tensor) -> Tensor:
    return x / (flow.abs(x) + 1)


def _trunc(x: Tensor) -> Tensor:
    return flow.sign(x) * flow.floor(flow.abs(x))


def _logsigmoid(x: Tensor) -> Tensor:
    """Written out: OneFlow's own is -inf of x below -710."""
    is_below, zero = broadcasting.is_less(x, 0), as_tensor(0, x)
    below, above = flow.where(is_below, x, zero), flow.where(is_below, zero, x)
    return flow.where(is_below, below - flow.log1p(flow.exp(below)), -flow.log1p(flow.exp(-above)))


def _clip(x: Tensor, low: float, high: float) -> Tensor:
    """Clip with a gradient strictly between the limits."""
    is_within = broadcasting.is_greater(x, low) & broadcasting.is_less(x, high)
    return flow.where(is_within, x, detach(flow.clamp(x, min=low, max=high)))


_SIXTH: Final = float(np.float32(1 / 6))


# In float64, kernels of OneFlow 0.9 compute with some numbers as float32 holds them: there these are written out.
def _hardsigmoid(x: Tensor) -> Tensor:
    if x.dtype != flow.float64:
        return _C.hardsigmoid(x)
    clipped = _clip(x + 3, 0.0, 6.0)
    scaled = clipped * _SIXTH  # torch, in float64 too, takes this number in the gradient, and 1/6 in the value
    return scaled + detach(clipped / 6 - scaled)


def _hardtanh(x: Tensor, low: float, high: float) -> Tensor:
    return _clip(x, low, high) if x.dtype == flow.float64 else _C.hardtanh(x, min_val=low, max_val=high)


def _leaky_relu(x: Tensor, slope: float) -> Tensor:
    return flow.where(x > 0, x, x * slope) if x.dtype == flow.float64 else _C.leaky_relu(x, slope)


def _logical_not(x: Tensor) -> Tensor:
    return convert(broadcasting.equals(x, 0), flow.bool) if not _is_bool(x) else flow.logical_not(x)


def _square(x: Tensor) -> Tensor:
    return x * x


def _floor_divide(x: Any, y: Any) -> Tensor:
    x = as_tensor(x, y)
    if x.dtype.is_floating_point:
        return _divide_down(x, y)
    x, y, dtype = _as_whole_numbers(x, y)
    product = x - _remainder_of_whole(x, y)
    divisor = convert(y, flow.float64)
    # Each division of float64 has 53 bits of the quotient right; the second one has all that are left.
    quotient = convert(flow.round(convert(product, flow.float64) / divisor), flow.int64)
    rest = convert(flow.round(convert(product - quotient * y, flow.float64) / divisor), flow.int64)
    return convert(quotient + rest, dtype)


def _as_whole_numbers(x: Tensor, y: Any) -> tuple[Tensor, Tensor, TensorType]:
    """Bring whole numbers to int64, a divisor of zero to one; also returns the dtype of the result."""
    divisor = convert(as_tensor(y, x), flow.int64)
    return convert(x, flow.int64), flow.where(divisor == 0, as_tensor(1, divisor), divisor), x.dtype


def _remainder_of_whole(x: Tensor, y: Tensor) -> Tensor:
    rest = flow.fmod(x, y)
    return flow.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


def _divide_down(x: Tensor, y: Any) -> Tensor:
    """Divide and round down by way of the exact remainder, as torch does: 1.0 // 0.1 is 9, for 0.1 is a little more."""
    x, y = detach(x), detach(y) if isinstance(y, flow.Tensor) else as_tensor(y, x)
    rest = flow.fmod(x, y)
    quotient = (x - rest) / y
    quotient = quotient - convert((rest != 0) & ((rest < 0) != (y < 0)), x.dtype)
    below = flow.floor(quotient)
    return flow.where(y == 0, x / y, below + convert(quotient - below > 0.5, x.dtype))


def _remainder(x: Any, y: Any) -> Tensor:
    """The exact remainder, with the divisor's sign; its gradient by the divisor is the quotient, rounded down."""
    x = as_tensor(x, y)
    if not x.dtype.is_floating_point:
        x, y, dtype = _as_whole_numbers(x, y)
        return convert(_remainder_of_whole(x, y), dtype)
    divisor = as_tensor(y, x)
    number, by = detach(x), detach(divisor)
    rest = flow.fmod(number, by)
    rest = flow.where((rest != 0) & ((rest < 0) != (by < 0)), rest + by, rest)
    if x.requires_grad:
        rest = rest + (x - number)
    if divisor.requires_grad:
        rest = rest - _divide_down(x, divisor) * (divisor - by)
    return rest


def _pow(x: Any, y: Any) -> Tensor:
    if isinstance(y, int | float) and y == 2:
        return x * x
    if isinstance(y, int | float) and y == 0:  # OneFlow's gradient at 0 is NaN
        return flow.where(x < x, x, as_tensor(1, x))
    if isinstance(y, float) and abs(y) == 0.5:  # torch too takes the root, which has none of -inf
        return flow.sqrt(x) if y > 0 else flow.rsqrt(x)
    return _pow_of_tensor(as_tensor(x, y), y) if isinstance(y, flow.Tensor) else flow.pow(x, y)


def _pow_of_tensor(x: Tensor, y: Tensor) -> Tensor:
    """Raise to powers, with torch's gradients.

    By the base, OneFlow's gradient at zero is NaN of many powers. By powers that learn, that of a power of zero is
    zero, where OneFlow's is NaN; that of a negative number's power is NaN, where it is zero.
    """
    one = as_tensor(1, x)
    is_zero = broadcasting.equals(x, 0) & broadcasting.is_at_least(y, 0)
    powers = flow.pow(flow.where(is_zero, one, x), flow.where(is_zero, one, y))
    powers = flow.where(is_zero, _powers_of_zero(x, detach(y), is_zero), powers)
    if not y.requires_grad:
        return powers
    nothing = flow.tanh(y) - detach(flow.tanh(y))
    return powers + flow.sqrt(flow.where(broadcasting.is_less(x, 0), nothing, one)) * 0


def _powers_of_zero(x: Tensor, y: Tensor, is_zero: Tensor) -> Tensor:
    """Powers of zero, of which none is negative: the gradient is infinite below the first one, 1 at it, else zero."""
    one, nothing = as_tensor(1, x), as_tensor(0, x)
    is_below_first = is_zero & broadcasting.is_greater(y, 0) & broadcasting.is_less(y, 1)
    is_first = is_zero & broadcasting.equals(y, 1)
    rest = flow.where(is_zero & broadcasting.equals(y, 0), one, nothing)
    rest = flow.where(is_first, flow.where(is_first, x, nothing), rest)
    below_first = flow.sqrt(flow.where(is_below_first, x, one) + nothing)  # -0.0, whose gradient is -inf, becomes 0.0
    return flow.where(is_below_first, below_first, rest)


def _atan2(x: Any, y: Any) -> Tensor:
    """Take the angle, with torch's gradient at the origin, zero; OneFlow's own is NaN there."""
    x, y = as_tensor(x, y), as_tensor(y, x)
    shape = np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    x, y = (each if tuple(each.shape) == shape else each.expand(*shape) for each in (x, y))
    is_origin = broadcasting.equals(x, 0) & broadcasting.equals(y, 0)
    angle = flow.atan2(x, flow.where(is_origin, as_tensor(1, y), y))
    return flow.where(is_origin, flow.atan2(detach(x), detach(y)), angle)


class _Replacement(flow.autograd.Function):
    """Other numbers in the place of a tensor's, which then has its gradient: as torch changes one under ``no_grad``."""

    @staticmethod
    def forward(context: Any, x: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _keep_gradient(x: Tensor, values: Tensor) -> Tensor:
    return _Replacement.apply(x, detach(values)) if x.requires_grad else values


def _mish(x: Tensor) -> Tensor:
    """Written out: OneFlow's own is NaN of large numbers."""
    return x * flow.tanh(_C.softplus(x, 1.0, 20.0))


def _hardswish(x: Tensor) -> Tensor:
    """OneFlow's own, but NaN of -inf, as 0 times -inf is."""
    return _C.hardswish(x) + flow.clamp(detach(x), max=0.0) * 0


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    """OneFlow's own, which aborts in the backward pass of a tensor of one axis."""
    return _C.prelu(x, weight) if x.ndim > 1 else _C.prelu(x.reshape(-1, 1), weight).reshape(-1)


def _choose(larger: bool) -> Callable[[Any, Any], Tensor]:
    function = broadcasting.maximum if larger else broadcasting.minimum

    def choose(x: Any, y: Any) -> Tensor:
        return function(x, as_tensor(y, x)) if isinstance(x, flow.Tensor) else function(as_tensor(x, y), y)

    return choose


def _logical(name: str) -> Callable[[Any, Any], Tensor]:
    function = getattr(flow, f"logical_{name}")

    def logical(x: Any, y: Any) -> Tensor:
        first, second = (convert(each, flow.bool) if isinstance(each, flow.Tensor) else each for each in (x, y))
        first, second = (
            each if isinstance(each, flow.Tensor) else as_tensor(bool(each), other)
            for each, other in ((first, second), (second, first))
        )
        return function(first, second)

    return logical


def _where(condition: Tensor, x: Any, y: Any) -> Tensor:
    """Choose element by element; in a graph OneFlow aborts where two of the three have fewer axes than the third."""
    like = x if isinstance(x, flow.Tensor) else y
    chosen = convert(condition, flow.bool), as_tensor(x, like), as_tensor(y, like)
    rank = max(each.ndim for each in chosen)
    return flow.where(*(each if each.ndim == rank else _with_axes(each, rank) for each in chosen))


def _with_axes(x: Tensor, rank: int) -> Tensor:
    """Put axes of length 1 in front."""
    return x.reshape(*(1,) * (rank - x.ndim), *x.shape)


def _clamp(x: Tensor, low: float | None, high: float | None) -> Tensor:
    return flow.clamp(x, min=low, max=high)


def _gelu(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh" and x.dtype == flow.float64:
        return 0.5 * x * (1 + flow.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return _C.gelu_with_approximate(x, approximate)


def _relu(x: Tensor) -> Tensor:
    return _C.relu(x)


def _sign(x: Tensor) -> Tensor:
    return convert(flow.sign(x), x.dtype)  # of whole numbers it is float32


_OTHERWISE: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "isnan": _isnan,
    "log2": _log2,
    "logical_not": _logical_not,
    "relu": _relu,
    "sign": _sign,
    "square": _square,
    "trunc": _trunc,
    "silu": _C.silu,
    "mish": _mish,
    "hardswish": _hardswish,
    "hardsigmoid": _hardsigmoid,
    "softsign": _softsign,
    "selu": _C.selu,
    "logsigmoid": _logsigmoid,
}
"""Those that OneFlow lacks under torch's name, or computes otherwise."""

UNARY_FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    name: _OTHERWISE[name] if name in _OTHERWISE else getattr(flow, name) for name in UNARY
}

ARITHMETIC: Final[Mapping[str, Callable[..., Tensor]]] = {
    **UNARY_FUNCTIONS,
    "add": broadcasting.add,
    "sub": broadcasting.subtract,
    "mul": broadcasting.multiply,
    "div": broadcasting.divide,
    "floor_divide": _floor_divide,
    "remainder": _remainder,
    "pow": _pow,
    "atan2": _atan2,
    "maximum": _choose(larger=True),
    "minimum": _choose(larger=False),
    "eq": broadcasting.equals,
    "ne": broadcasting.differs,
    "lt": broadcasting.is_less,
    "le": broadcasting.is_at_most,
    "gt": broadcasting.is_greater,
    "ge": broadcasting.is_at_least,
    "logical_and": _logical("and"),
    "logical_or": _logical("or"),
    "logical_xor": _logical("xor"),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "elu": lambda x, alpha: _C.elu(x, alpha=alpha),
    "hardtanh": _hardtanh,
    "softplus": lambda x, beta, threshold: _C.softplus(x, beta, threshold),
    "prelu": _prelu,
    "where": _where,
    "clamp": _clamp,
    "cast": convert,
    "detach": detach,
    "keep_gradient": _keep_gradient,
}
