"""Numbers that follow from one another, step by step: computed in order, once, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from layered_lr.arrays import Float64

_GROWING = threading.RLock()


class Kept:
    """Rows of numbers, one column a step, that grow at the end.

    Attributes:
        values: (rows, capacity); the columns below ``count`` are valid.
        count: Number of steps known.

    Args:
        first: The numbers at step 0, (rows, 1).
    """

    def __init__(self, first: Float64) -> None:
        self.values = first
        self.count = first.shape[1]

    def at_least(self, count: int, more: Callable[[int, int], Float64]) -> Float64:
        """The rows, with at least ``count`` columns known.

        Args:
            count: How many are needed.
            more: Takes the first step that is missing and the one past the last, and gives (rows, steps).
        """
        if self.count < count:
            with _GROWING:
                if self.count < count:
                    self._append(more(self.count, count))
        return self.values

    def _append(self, block: Float64) -> None:
        count = self.count + block.shape[1]
        if count > self.values.shape[1]:
            larger = np.empty((len(self.values), max(count, 2 * self.values.shape[1])))
            larger[:, : self.count] = self.values[:, : self.count]
            self.values = larger
        self.values[:, self.count : count] = block
        self.count = count
