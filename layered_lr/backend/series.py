"""Lists of numbers that grow by one at each update."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from layered_lr.arrays import Float64

_FEWEST_ROWS = 256


class Series:
    """A series of numbers, or of rows of numbers, that grows at the end; 8 bytes for each number.

    When the memory is full it grows by half, so that the time for adding rows stays proportional to their number. It
    does not grow beyond the expected rows while these are enough.

    Args:
        width: Numbers in a row; None for a series of single numbers.
        expected: How many rows there will be in total, if known.
    """

    def __init__(self, width: int | None = None, expected: int | None = None) -> None:
        self._inner = () if width is None else (width,)
        self._expected = expected or 0
        self._rows = np.empty((0, *self._inner))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: ArrayLike) -> None:
        """Add rows at the end.

        Args:
            rows: Shape (n,), or (n, width).
        """
        given: Float64 = np.asarray(rows, dtype=np.float64)
        stop = self._count + len(given)
        if stop > len(self._rows):
            room = max(stop + stop // 2, _FEWEST_ROWS)
            grown = np.empty((min(room, self._expected) if stop <= self._expected else room, *self._inner))
            grown[: self._count] = self.numbers()
            self._rows = grown
        self._rows[self._count : stop] = given
        self._count = stop

    def cut(self, count: int) -> None:
        """Remove the rows from ``count`` on."""
        self._count = min(self._count, count)

    def numbers(self, start: int = 0) -> Float64:
        """Return the rows from ``start`` on, shape (n,) or (n, width); a view that does not change with later rows."""
        return self._rows[start : self._count]


class Repeats:
    """A series of numbers in which many neighbours are equal; each run of equal numbers is stored once."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def add(self, value: float, count: int) -> None:
        """Add a number ``count`` times at the end."""
        if count == 0:
            return
        stop = len(self) + count
        if self._values and self._values[-1] == value:
            self._stops[-1] = stop
        else:
            self._values.append(value)
            self._stops.append(stop)

    def numbers(self) -> Float64:
        """Return all numbers as a new array, shape (n,)."""
        return np.repeat(np.array(self._values, dtype=np.float64), np.diff(self._stops, prepend=0).astype(np.int64))
