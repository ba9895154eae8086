"""What a run has measured so far, update by update; it goes into checkpoints and comes back out of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Arrays, Float64
from layered_lr.backend.series import Repeats, Series
from layered_lr.training.metrics import list_names

_SERIES = ("losses", "accuracies", "ema_accuracies")
_FACTORS = "rate_factors"
_TABLES = ("rates", "planned", "grad_norms")
_STEPS = ("best_at", "better_at")
_LOGGED, _WATCHED, _BEST, _BEST_AVERAGE = "logged/", "watched/", "best/", "best_average/"


class Measured(NamedTuple):
    """What is known of some updates, one after the other.

    Args:
        losses: Before each update, shape (n,).
        rates: Each group's, shape (n, groups).
        grad_norms: Each group's gradient norm, shape (n, groups); NaN where it is not measured.
    """

    losses: Float64
    rates: Float64
    grad_norms: Float64


class History:
    """Everything measured so far.

    Args:
        groups: How many the plan has.
        expected: Updates of the whole run, if known: what is noted of each then takes no more room than it needs.

    Attributes:
        losses: Before each update whose loss is known.
        accuracies: After each epoch.
        ema_accuracies: The moving average's, after each epoch.
        rate_factors: What rollbacks had multiplied the planned rates with, one for each row of ``rates``.
        rates: Each group's, a row for each update.
        planned: Each group's planned rate at that time, a row for each update.
        grad_norms: Each group's gradient norm, a row for each update; no rows where they are not measured.
        logged: What callbacks have logged, and metrics, by name: a row of (updates made, number) each time.
        watched: What decides about an early end, by the metric's name: a row of (updates made, number) for each epoch.
        best_weights: The weights when that was best, by name; empty where they are not kept.
        best_average: Their moving average at that time; empty where there is none.
        best_at: After how many updates these were the weights; None where none are kept.
        better_at: After how many updates the run ended within an epoch, with weights that are better than those of all
            whole epochs; None where it did not.
    """

    def __init__(self, groups: int, expected: int | None = None) -> None:
        self.losses, self.rate_factors = Series(None, expected), Repeats()
        self.accuracies, self.ema_accuracies = Series(), Series()
        self.rates, self.planned, self.grad_norms = (Series(groups, expected) for _ in _TABLES)
        self.logged: dict[str, Series] = {}
        self.watched: dict[str, Series] = {}
        self.best_weights: Arrays = {}
        self.best_average: Arrays = {}
        self.best_at: int | None = None
        self.better_at: int | None = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers of a callback's.

        Args:
            step: Updates made.
            numbers: By name.
        """
        for name, number in numbers.items():
            self.logged.setdefault(name, Series(2)).add([[step, number]])

    def sort_logged(self, names: Iterable[str]) -> None:
        """Bring what was logged into the order in which a run began to log it, which files do not keep.

        Args:
            names: In that order; those that are not among them come last, and those without numbers do not count.
        """
        self.logged = {name: self.logged[name] for name in dict.fromkeys([*names, *self.logged]) if name in self.logged}

    def cut_epoch(self, step: int, in_epoch: int, metrics: Collection[str]) -> None:
        """Forget what was measured at the end of a shorter run, in mid-epoch: it is no epoch's.

        Args:
            step: Updates made, where the run goes on.
            in_epoch: Updates of an epoch.
            metrics: The names of what each evaluation measures, beside the accuracy.
        """
        self.accuracies.cut(step // in_epoch)
        self.ema_accuracies.cut(step // in_epoch)
        if step % in_epoch == 0:
            return
        for name in list_names(metrics, has_average=True):
            rows = self.logged.get(name)
            if rows is not None and len(rows) and int(rows.numbers()[-1][0]) == step:
                rows.cut(len(rows) - 1)

    def since(self, start: int) -> Measured:
        """What is known of the updates from ``start`` on.

        Args:
            start: The first one, 0-based.
        """
        stop = min(len(self.losses), len(self.rates))
        rates = self.rates.numbers(start)[: max(stop - start, 0)]
        norms = self.grad_norms.numbers(start)[: len(rates)]
        unknown = np.full((len(rates) - len(norms), rates.shape[1]), np.nan)
        return Measured(self.losses.numbers(start)[: len(rates)], rates, np.concatenate([norms, unknown]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """A copy of everything, by name, as a checkpoint keeps it; the first axis counts."""
        own = {name: getattr(self, name).numbers().copy() for name in (*_SERIES, _FACTORS, *_TABLES)}
        own |= {_LOGGED + name: rows.numbers().copy() for name, rows in self.logged.items()}
        own |= {_WATCHED + name: rows.numbers().copy() for name, rows in self.watched.items()}
        own |= {name: np.array([step]) for name in _STEPS if (step := getattr(self, name)) is not None}
        own |= {_BEST + name: array for name, array in self.best_weights.items()}
        return own | {_BEST_AVERAGE + name: array for name, array in self.best_average.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], groups: int, expected: int | None = None) -> History:
        """The history that ``arrays`` was called on; an empty one where there are no arrays.

        Args:
            arrays: By name.
            groups: How many groups the plan has that goes on. Tables with another number of groups say nothing about
                these: their rows become NaN.
            expected: Updates of the whole run, if known.
        """
        history = cls(groups, expected)
        for name in (*_SERIES, *_TABLES):
            if name in arrays:
                array = arrays[name]
                getattr(history, name).add(array if name in _SERIES else _of_groups(array, groups))
        for prefix, found in ((_LOGGED, history.logged), (_WATCHED, history.watched)):
            for name in [name for name in arrays if name.startswith(prefix)]:
                rows = found[name.removeprefix(prefix)] = Series(2)
                rows.add(arrays[name])
        history.best_weights = _without(_BEST, arrays)
        history.best_average = _without(_BEST_AVERAGE, arrays)
        for name in _STEPS:
            setattr(history, name, int(arrays[name][0]) if name in arrays else None)
        factors = arrays.get(_FACTORS, np.empty(0))
        stops = [*(np.flatnonzero(np.diff(factors)) + 1).tolist(), len(factors)]
        for start, stop in pairwise([0, *stops]):
            history.rate_factors.add(float(factors[start]) if stop > start else 1.0, stop - start)
        return history


def _without(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _of_groups(table: NDArray[Any], groups: int) -> Float64:
    return table if table.shape[1] == groups else np.full((len(table), groups), np.nan)


def mean_loss(losses: Float64) -> float:
    """The mean of the losses of an epoch, or of its beginning; NaN where there are none.

    Args:
        losses: Those of skipped updates are NaN, and do not count.
    """
    known = losses[~np.isnan(losses)]
    return float(np.add.reduce(known)) / len(known) if len(known) else float("nan")
