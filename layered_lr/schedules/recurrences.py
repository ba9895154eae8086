"""Tables of numbers in which each step is computed from the step before: each number is computed once and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from layered_lr.arrays import Float64

_GROWING = threading.RLock()


class GrowingTable:
    """A table with one column for each step; new columns are added at the end.

    Attributes:
        values: Shape (rows, capacity); the columns below ``count`` are valid.
        count: Number of steps that are known.

    Args:
        first: The numbers at step 0, shape (rows, 1).
    """

    def __init__(self, first: Float64) -> None:
        self.values = first
        self.count = first.shape[1]

    def extend_to(self, count: int, more: Callable[[int, int], Float64]) -> Float64:
        """Return the table with at least ``count`` valid columns.

        Args:
            count: How many columns are needed.
            more: Takes the first missing step and the step after the last one; returns their numbers, (rows, steps).
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
