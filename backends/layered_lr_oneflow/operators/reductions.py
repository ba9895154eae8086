"""Operators of a traced model that reduce axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow


def _softmax(x: Tensor, axis: int) -> Tensor:
    return flow._C.softmax(x, axis)


def _log_softmax(x: Tensor, axis: int) -> Tensor:
    return flow._C.log_softmax(x, axis)


def _reduce(name: str) -> Callable[..., Tensor]:
    function = getattr(flow, name)

    def reduce(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
        return function(x, dim=list(axes), keepdim=keepdim) if axes else x

    return reduce


def _var(x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool) -> Tensor:
    """Compute the variance from differences from the mean, as torch does."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    centred = x - x.mean(dim=list(axes), keepdim=True)
    return (centred * centred).sum(dim=list(axes), keepdim=keepdim) / (count - correction)


def _place(name: str) -> Callable[..., Tensor]:
    def place(x: Tensor, axis: int, keepdim: bool) -> Tensor:
        return flow.argmax(x if name == "argmax" else -x, dim=axis, keepdim=keepdim)

    return place


REDUCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sum": _reduce("sum"),
    "mean": _reduce("mean"),
    "var": _var,
    "amax": _reduce("amax"),
    "amin": _reduce("amin"),
    "argmax": _place("argmax"),
    "argmin": _place("argmin"),
    "cumsum": lambda x, axis: flow.cumsum(x, axis),
}
