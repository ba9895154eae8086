"""Operators of a traced model that reduce axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import detach
from layered_lr_oneflow.operators.broadcasting import subtract
from layered_lr_oneflow.operators.not_a_number import find_extreme, place_largest
from layered_lr_oneflow.operators.softmax import log_softmax, softmax
from layered_lr_oneflow.runtime import flow


def _reduce(name: str) -> Callable[..., Tensor]:
    function = getattr(flow, name)

    def reduce(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
        return function(x, dim=list(axes), keepdim=keepdim) if axes else x

    return reduce


def _extreme(largest: bool) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
        return find_extreme(x, list(axes), keepdim, largest) if axes else x

    return reduce


def _var(x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool) -> Tensor:
    """Compute the variance from differences from the mean, as torch does."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    mean = x.mean(dim=list(axes), keepdim=True)
    centred = subtract(x, mean if count > correction else detach(mean))  # else infinite gradients would meet in it
    squares = (centred * centred).sum(dim=list(axes), keepdim=keepdim)
    if count > correction:
        return squares / (count - correction)
    if count == correction:
        return squares * math.inf
    by_count = squares / (count - correction)  # torch divides by 0 here, but in the gradient by what there is
    return by_count + detach(squares) * math.inf


REDUCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sum": _reduce("sum"),
    "mean": _reduce("mean"),
    "var": _var,
    "amax": _extreme(largest=True),
    "amin": _extreme(largest=False),
    "argmax": place_largest,
    "argmin": lambda x, axis, keepdim: place_largest(-x, axis, keepdim),
    "cumsum": lambda x, axis: flow.cumsum(x, axis),
    "cumprod": lambda x, axis: flow.cumprod(x, axis),
}
