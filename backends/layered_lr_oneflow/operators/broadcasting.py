"""Operators of two tensors, one of which is repeated along axes: the same numbers, in a layout that is fast on a CPU.

In float32 OneFlow 0.9 hands such an operator to oneDNN. That has fast kernels for few layouts, and for the others one
that takes 70 ns an element: a bias of 64 channels on 32 images of 16x16 takes 38 ms in place of 0.4 (``bias_add``, or
the smaller tensor first), ``x > 0.5`` takes 60 ms in place of 0.4 (one core, AMD EPYC).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow

_C = flow._C
_LEAST = 2**12
"""Elements of the result from which a layout pays for its operators, some 20 microseconds each in eager mode."""

_Sides = tuple[tuple[int, ...], tuple[int, ...]]
_Function = Callable[[Any, Any], Tensor]


def find_layout(large: tuple[int, ...], small: tuple[int, ...]) -> _Sides | None:
    """Find shapes with which oneDNN is fast.

    Axes side by side along which the smaller tensor is repeated become one, and so do those along which it is not.

    Args:
        large: The shape of the result.
        small: What is repeated to that shape; axes may lack on the left.

    Returns:
        Shapes of both, of as many elements as before; None where none is known.
    """
    merged: list[tuple[bool, int]] = []
    for size, own in zip(large, (1,) * (len(large) - len(small)) + small, strict=True):
        if size == 1:
            continue
        repeated = own == 1
        if merged and merged[-1][0] == repeated:
            size *= merged.pop()[1]
        merged.append((repeated, size))
    sizes = tuple(size for _, size in merged)
    match [repeated for repeated, _ in merged]:
        case [] | [False] | [True]:
            return large, small
        case [True, False]:
            return sizes, (1, sizes[1])
        case [False, True]:
            return (1, *sizes, 1), (1, sizes[0], 1, 1)
        case [True, False, True]:
            return (*sizes, 1), (1, sizes[1], 1, 1)
        case [False, True, False]:
            first, between, last = sizes
            return (first, between, 1, last), (first, 1, 1, last)
        case _:
            return None


def _is_fast(large: tuple[int, ...], small: tuple[int, ...]) -> bool:
    """Whether the shapes are fast as they are: numbers for each channel of images, or for the last axis."""
    if len(large) == 4 and len(small) >= 3 and small[-2:] == (1, 1) and small[-3] == large[1]:
        return len(small) == 3 or small[0] in (1, large[0])
    return math.prod(small) == small[-1] if small else True


def _goes_to_onednn(x: Tensor) -> bool:
    """Whether oneDNN gets a tensor of this kind, on a CPU and in float32; a global one's axes stay as they are."""
    return bool(x.dtype == flow.float32 and not x.is_global and x.device.type == "cpu")


def _gains(x: Any, y: Any) -> bool:
    """Whether oneDNN gets a pair of tensors, of different shapes, with elements enough to matter."""
    if not (isinstance(x, flow.Tensor) and isinstance(y, flow.Tensor)) or x.shape == y.shape:
        return False
    numbers = x.numel(), y.numel()
    return _goes_to_onednn(x) and _goes_to_onednn(y) and max(numbers) >= _LEAST and min(numbers) > 0


def _is_compared_badly(x: Tensor) -> bool:
    """Whether oneDNN compares a tensor with a number slowly; or, one without axes, as an equal shape, NaN and all."""
    return _goes_to_onednn(x) and (x.numel() >= _LEAST or not x.ndim)


def _repeat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Write a tensor out along the axes along which it is repeated."""
    return x if tuple(x.shape) == shape else x.expand(*shape)


def _in_layout(function: _Function, if_swapped: _Function | None) -> _Function:
    """Make an operator that takes its tensors in the fastest layout.

    Args:
        function: Of two tensors, or a tensor and a number.
        if_swapped: Gives the same numbers to the bit of the two tensors in the other order; None where nothing does.
    """

    def compute(x: Any, y: Any) -> Tensor:
        if not _gains(x, y):
            return function(x, y)
        result = np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
        if tuple(x.shape) == result:
            return _compute_large_first(function, x, y)
        if tuple(y.shape) == result and if_swapped is not None:
            return _compute_large_first(if_swapped, y, x)
        return function(_repeat(x, result), _repeat(y, result))

    return compute


def _compute_large_first(function: _Function, large: Tensor, small: Tensor) -> Tensor:
    shape, its = tuple(large.shape), tuple(small.shape)
    if _is_fast(shape, its):
        return function(large, small)
    layout = find_layout(shape, its)
    if layout is None:
        return function(large, _repeat(small, shape))
    return function(large.reshape(layout[0]), small.reshape(layout[1])).reshape(shape)


def _compared(function: _Function, tensors_swapped: _Function | None = None) -> _Function:
    """Make a comparison of tensors that are both written out: oneDNN compares no others fast.

    Args:
        function: Of two tensors, or a tensor and a number.
        tensors_swapped: The same of two tensors in the other order. oneDNN finds NaN greater than any number.
    """

    def compare(x: Any, y: Any) -> Tensor:
        if isinstance(x, flow.Tensor) and not isinstance(y, flow.Tensor) and _is_compared_badly(x):
            y = _C.constant(tuple(x.shape), y, dtype=x.dtype, device=flow.device("cpu"))
        if _gains(x, y):
            result = np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
            x, y = _repeat(x, result), _repeat(y, result)
        if tensors_swapped is not None and isinstance(x, flow.Tensor) and isinstance(y, flow.Tensor):
            return tensors_swapped(y, x)
        return function(x, y)

    return compare


def _with_nan(function: _Function) -> _Function:
    """Let the first tensor's NaN through, as torch does; OneFlow answers with the second tensor's number."""

    def choose(x: Tensor, y: Tensor) -> Tensor:
        made = function(x, y)
        first = _repeat(x, tuple(made.shape))
        return flow.where(first != first, first, made)

    return choose


add: Final = _in_layout(operator.add, operator.add)
subtract: Final = _in_layout(operator.sub, lambda y, x: -y + x)
multiply: Final = _in_layout(operator.mul, operator.mul)
divide: Final = _in_layout(operator.truediv, None)
maximum: Final = _with_nan(_in_layout(flow.maximum, None))
minimum: Final = _with_nan(_in_layout(flow.minimum, None))
equals: Final = _compared(operator.eq)
differs: Final = _compared(operator.ne)
is_less: Final = _compared(operator.lt)
is_at_most: Final = _compared(operator.le)
is_greater: Final = _compared(operator.gt, operator.lt)
is_at_least: Final = _compared(operator.ge, operator.le)


def add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add a number for each channel, the second axis."""
    return x if bias is None else add(x, bias.reshape(1, -1, *(1 for _ in x.shape[2:])))
