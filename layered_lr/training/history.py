"""What a run has measured so far, update by update; it goes into checkpoints and comes back out of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from layered_lr.schedules import Float64

_SERIES = ("losses", "accuracies", "ema_accuracies")
_FACTORS = "rate_factors"
_TABLES = ("rates", "planned", "grad_norms")
_FEWEST_ROWS = 256


class Series:
    """Numbers, or rows of them, that are added at the end, 8 bytes each.

    The memory grows by half where it is full, so that adding rows one after the other costs time in proportion; to
    no more than the rows that are expected, as long as these suffice.

    Args:
        width: Numbers in a row; None for a series of single numbers.
        expected: How many rows there will be in all, if that is known.
    """

    def __init__(self, width: int | None = None, expected: int | None = None) -> None:
        self._inner = () if width is None else (width,)
        self._expected = expected or 0
        self._rows = np.empty((0, *self._inner))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: ArrayLike) -> None:
        """Put rows behind those that there are.

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
        """Forget the rows from ``count`` on."""
        self._count = min(self._count, count)

    def numbers(self, start: int = 0) -> Float64:
        """The rows from ``start`` on, shape (n,) or (n, width): a view, which later rows leave as it is."""
        return self._rows[start : self._count]


class Repeats:
    """Numbers of which many in a row are the same, kept as what they are and where each row of them ends."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def add(self, value: float, count: int) -> None:
        """Put a number behind the others, so many times."""
        if count == 0:
            return
        stop = len(self) + count
        if self._values and self._values[-1] == value:
            self._stops[-1] = stop
        else:
            self._values.append(value)
            self._stops.append(stop)

    def numbers(self) -> Float64:
        """All of them, shape (n,), newly made."""
        return np.repeat(np.array(self._values, dtype=np.float64), np.diff(self._stops, prepend=0).astype(np.int64))


class History:
    """Everything measured so far.

    Args:
        groups: How many the plan has.
        expected: Updates of the whole run, if known: what is noted of each then takes no more room than it needs.

    Attributes:
        losses: Before each update whose loss is known.
        accuracies: After each epoch.
        ema_accuracies: Likewise, of the moving average.
        rate_factors: What a rollback had multiplied the planned rates with, of each update that ``rates`` has.
        rates: Each group's, a row for each update.
        planned: Likewise, as the plan had it then.
        grad_norms: Likewise; none where they are not measured.
    """

    def __init__(self, groups: int, expected: int | None = None) -> None:
        self.losses, self.rate_factors = Series(None, expected), Repeats()
        self.accuracies, self.ema_accuracies = Series(), Series()
        self.rates, self.planned, self.grad_norms = (Series(groups, expected) for _ in _TABLES)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """A copy of all of it, by name; see ``TrainingState.history``."""
        return {name: getattr(self, name).numbers().copy() for name in (*_SERIES, _FACTORS, *_TABLES)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], groups: int, expected: int | None = None) -> History:
        """What ``arrays`` gave; nothing where there is nothing.

        Args:
            arrays: By name.
            groups: Of the plan that goes on. Tables of another number of groups say nothing of these: NaN.
            expected: As for ``History``.
        """
        history = cls(groups, expected)
        for name in (*_SERIES, *_TABLES):
            if name in arrays:
                array = arrays[name]
                getattr(history, name).add(array if name in _SERIES else _of_groups(array, groups))
        factors = arrays.get(_FACTORS, np.empty(0))
        stops = [*(np.flatnonzero(np.diff(factors)) + 1).tolist(), len(factors)]
        for start, stop in pairwise([0, *stops]):
            history.rate_factors.add(float(factors[start]) if stop > start else 1.0, stop - start)
        return history


def _of_groups(table: NDArray[Any], groups: int) -> Float64:
    return table if table.shape[1] == groups else np.full((len(table), groups), np.nan)
