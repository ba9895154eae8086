"""Whole numbers that depend on a model's inputs: no place outside of a tensor, and no divisor of 0, in a graph too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.errors import DataError
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import convert, detach, make_constant
from layered_lr_oneflow.runtime import flow


class LazyLookups:
    """The lookups and whole divisions of a graph's trace, whose numbers are known only when the graph runs.

    Attributes:
        ranges: Of each lookup, the lowest and the highest place, and how many places there are: float64, shape (3,). Of
            a division, -1 if a divisor is 0, else 0; 0; and infinity.
    """

    def __init__(self) -> None:
        self.ranges: list[Tensor] = []

    def join(self, loss: Tensor) -> Tensor:
        """Let a loss have the ranges behind its number, so that both are read at once; see ``read_loss``."""
        if not self.ranges:
            return loss
        return flow.cat([convert(detach(loss).reshape(1), flow.float64), *self.ranges], dim=0)

    def spoil(self, answer: Tensor) -> Tensor:
        """Let all numbers of an answer be NaN where a place is out of range."""
        if not self.ranges or not answer.dtype.is_floating_point:
            return answer
        shape = (1,) * answer.ndim
        for lowest, highest, count in (flow.chunk(each, 3, 0) for each in self.ranges):
            is_outside = ((lowest < 0) | (highest >= count)).reshape(*shape)
            answer = flow.where(is_outside, make_constant(shape, float("nan"), answer.dtype, answer), answer)
        return answer


_WATCHED: list[LazyLookups] = []
"""Where lookups of a trace are written down; empty where nothing reads them."""


@contextmanager
def watch_lookups() -> Iterator[LazyLookups]:
    """Write down the lookups of the forward passes that are traced inside of a ``with`` block."""
    watched = LazyLookups()
    _WATCHED.append(watched)
    try:
        yield watched
    finally:
        _WATCHED.pop()


def are_watched() -> bool:
    """Whether something reads the lookups that are written down."""
    return bool(_WATCHED)


def keep_within(x: Tensor, axis: int, index: Tensor, own: LazyLookups) -> Tensor:
    """Let an index read no place outside of a tensor, at which OneFlow would abort the process, or read other numbers.

    Args:
        x: What is read.
        axis: Along which.
        index: Whole numbers.
        own: Takes the lookup in a trace, where nothing else watches.

    Returns:
        The index; in a trace, with each place outside moved to the nearest one.

    Raises:
        DataError: A place is outside; not in a trace.
    """
    count = x.shape[axis]
    if not index.is_lazy:
        places = index.numpy()
        if places.size:
            check_range(places.min(), places.max(), count)
        return index
    if not index.numel() or not count:
        return index
    flat = convert(detach(index), flow.float64).reshape(-1)
    ends = [flow.amin(flat, dim=0, keepdim=True), flow.amax(flat, dim=0, keepdim=True)]
    watched = _WATCHED[-1] if _WATCHED else own
    watched.ranges.append(flow.cat([*ends, make_constant((1,), count, flow.float64, flat)], dim=0))
    return flow.clamp(index, min=0, max=count - 1)


def keep_nonzero(divisor: Tensor, own: LazyLookups) -> Tensor:
    """Let no whole divisor be 0, by which OneFlow would divide without a word.

    Args:
        divisor: Whole numbers.
        own: Takes the division in a trace, where nothing else watches.

    Returns:
        The divisor; in a trace, with 1 in the place of each 0.

    Raises:
        DataError: One is 0; not in a trace.
    """
    if not divisor.numel():
        return divisor
    if not divisor.is_lazy:
        if not divisor.numpy().all():
            check_range(-1, 0, math.inf)
        return divisor
    is_zero = convert(detach(divisor), flow.int64) == 0
    flat = convert(is_zero, flow.float64).reshape(-1)
    lowest = flow.amin(flat * -1.0, dim=0, keepdim=True)
    ends = [make_constant((1,), value, flow.float64, flat) for value in (0, math.inf)]
    watched = _WATCHED[-1] if _WATCHED else own
    watched.ranges.append(flow.cat([lowest, *ends], dim=0))
    return flow.where(is_zero, make_constant((1,) * divisor.ndim, 1, divisor.dtype, divisor), divisor)


def check_range(lowest: float, highest: float, count: float) -> None:
    """Refuse places outside of a tensor, and divisors that are 0; see ``LazyLookups``.

    Args:
        lowest: Of the places.
        highest: Of the places.
        count: How many places there are.

    Raises:
        DataError: Some are outside.
    """
    if lowest < 0 and count == math.inf:
        raise DataError(
            "model: divides whole numbers by 0, with // or %. Bring the inputs into a range in which no divisor is 0."
        )
    if lowest < 0 or highest >= count:
        raise DataError(
            f"model: looks up places {lowest:.0f} to {highest:.0f} of {count:.0f}; must be 0 to {count - 1:.0f}. Bring "
            "the inputs into this range."
        )


def read_loss(numbers: NDArray[Any]) -> float:
    """Read a loss that may have ranges of lookups behind its number; see ``LazyLookups.join``.

    Raises:
        DataError: A place is out of range.
    """
    loss, *ranges = np.asarray(numbers, np.float64).reshape(-1).tolist()
    for lowest, highest, count in zip(ranges[::3], ranges[1::3], ranges[2::3], strict=True):
        check_range(lowest, highest, count)
    return float(loss)
