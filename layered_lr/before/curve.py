"""The curve of a search: smoothed losses, where the search stops, and the rates that the curve suggests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from layered_lr.arrays import Float64

_UNSETTLED = 10  # the first tenth of a curve is the mean of few losses
_CLEARLY = 3.6  # standard errors, of a curve with one mean in it; of more of them one in a hundred changes by more too
_ROUNDING = 1e-6  # of a loss in float32
_MEDIAN = 0.6745  # of the absolute values of normal numbers, in standard deviations


class LossWatch:
    """Smooths losses one by one, and says when they have risen too far.

    The smoothed loss after update ``i`` is the running mean ``m = smoothing * m + (1 - smoothing) * loss``, which
    begins at 0, divided by ``1 - smoothing ** (i + 1)``.

    Args:
        smoothing: How much of the mean so far stays, from 0 to below 1.
        stop_factor: The search stops where the smoothed loss is more than so many times the lowest one.
    """

    def __init__(self, smoothing: float, stop_factor: float) -> None:
        self.smoothing, self.stop_factor = smoothing, stop_factor
        self.count = 0
        self._mean, self._best = 0.0, math.inf

    def add(self, loss: float) -> float:
        """Take in one more loss, and return the smoothed loss."""
        self._mean = self.smoothing * self._mean + (1 - self.smoothing) * loss
        self.count += 1
        smoothed = self._mean / (1 - self.smoothing**self.count)
        self._best = min(self._best, smoothed)
        self._last = smoothed
        return smoothed

    @property
    def is_over(self) -> bool:
        """Whether the newest smoothed loss is too high, or not finite.

        For a lowest loss below 0 it is the distance that counts, so that such a loss can be searched with too.
        """
        limit = self._best + (self.stop_factor - 1) * abs(self._best)
        return self.count > 1 and not self._last <= limit


def smooth(losses: Float64, smoothing: float) -> Float64:
    """The smoothed losses, shape (n,).

    Example:
        >>> smooth(np.array([2.0, 1.0]), 0.5).round(4).tolist()
        [2.0, 1.3333]
    """
    watch = LossWatch(smoothing, math.inf)
    return np.array([watch.add(float(loss)) for loss in losses])


def lowest_of(smoothed: Float64) -> int:
    """The place of the lowest loss behind the beginning, where a curve has not settled."""
    first = len(smoothed) // _UNSETTLED
    return int(np.argmin(smoothed[first:])) + first


def scatter_of(losses: Float64, smoothing: float, lowest: int) -> Float64:
    """How far the scatter between batches alone may move smoothed losses away from their course, shape (n,).

    A loss scatters by how far it lies from the middle of its two neighbours, which a slow course does not change: the
    median of that, up to the lowest loss, or over half of the curve at least. What lies behind may diverge.

    Args:
        losses: Of each update, shape (n,), at least three.
        smoothing: Of ``smooth``.
        lowest: The place of the lowest smoothed loss.
    """
    settled = losses[: max(lowest + 1, len(losses) // 2, 3)]
    bends = settled[1:-1] - (settled[:-2] + settled[2:]) / 2
    single = float(np.median(np.abs(bends))) / _MEDIAN / math.sqrt(1.5)
    faded = smoothing ** np.arange(1.0, len(losses) + 1)
    chances = max(1.0, len(losses) * (1 - smoothing))  # means that share few losses: the more, the farther one lies off
    clearly = _CLEARLY + 0.4 * math.log(chances)
    spread: Float64 = clearly * single * np.sqrt((1 - smoothing) / (1 + smoothing) * (1 + faded) / (1 - faded))
    return spread


def reacts(smoothed: Float64, scatter: Float64) -> bool:
    """Whether a settled curve changes by more than its scatter.

    Args:
        smoothed: The smoothed losses, shape (n,).
        scatter: Of each of them, shape (n,).
    """
    first = len(smoothed) // _UNSETTLED
    highest, lowest = int(np.argmax(smoothed[first:])) + first, lowest_of(smoothed)
    return bool(_is_clear(smoothed[highest] - smoothed[lowest], scatter[highest], scatter[lowest], smoothed[highest]))


def _is_clear(change: Any, scatter: Any, other: Any, loss: Any) -> Any:
    return change > np.maximum(np.hypot(scatter, other), _ROUNDING * np.abs(loss))


def falls_clearly(smoothed: Float64, scatter: Float64) -> bool:
    """Whether the loss falls by more than its scatter, before its lowest.

    Args:
        smoothed: The smoothed losses, shape (n,).
        scatter: Of each of them, shape (n,).
    """
    lowest = lowest_of(smoothed)
    before = slice(len(smoothed) // _UNSETTLED, lowest)
    falls = smoothed[before] - smoothed[lowest]
    return bool(np.any(_is_clear(falls, scatter[before], scatter[lowest], smoothed[before])))


def find_suggestions(lr: Float64, smoothed: Float64) -> Iterator[tuple[str, int, float]]:
    """Yield the name, the place and the rate of each suggestion of a curve; none where the loss never falls.

    ``steepest`` is where the loss falls fastest over the logarithm of the rate, ``valley`` lies two thirds down the
    longest fall (fastai's ``valley``), and ``tenth`` is a tenth of the rate of the lowest loss.

    Args:
        lr: The rates, ascending, shape (n,).
        smoothed: The smoothed losses, shape (n,).
    """
    first = len(lr) // _UNSETTLED
    if len(lr) - first < 3:
        return
    lowest = lowest_of(smoothed)
    if lowest - first < 2:  # it only rises from where the curve has settled
        return
    slope = np.gradient(smoothed, np.log(lr))
    steepest = int(np.argmin(slope[first : lowest + 1])) + first
    yield "steepest", steepest, float(lr[steepest])
    valley = _valley(smoothed[first:]) + first
    yield "valley", valley, float(lr[valley])
    tenth = float(lr[lowest]) / 10
    yield "tenth", int(np.argmin(np.abs(np.log(lr) - math.log(tenth)))), tenth


def _valley(smoothed: Float64) -> int:
    """The place two thirds down the longest fall: the longest subsequence of losses, each lower than the one before."""
    lengths = np.ones(len(smoothed), dtype=np.int64)
    for place in range(1, len(smoothed)):
        higher = lengths[:place][smoothed[:place] > smoothed[place]]
        lengths[place] += higher.max(initial=0)
    end = int(np.argmax(lengths))
    start = max(end - int(lengths[end]), 0)
    third = (end - start) / 3
    return start + int(third) + int(third / 2)
