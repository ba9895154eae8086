"""What a log holds of a run: rows of an update's number and the numbers by name, in the order of updates."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from layered_lr.arrays import Float64
from layered_lr.training.run_handle import RunHandle

RATE, GRAD_NORM, WEIGHT_NORM, LOGGED = "rate/", "grad_norm/", "weight_norm/", "logged/"


class Row(NamedTuple):
    """Numbers of one update.

    Args:
        step: Which update, 0-based.
        values: By name. The loss is the one before the update, and an accuracy the one right after it.
    """

    step: int
    values: dict[str, float]


class RowStream:
    """The rows of a run that a log has not got yet. It never waits for the framework.

    Args:
        run: The run.
        start: The first update to give a row of; those before it are in the log.
    """

    def __init__(self, run: RunHandle, start: int = 0) -> None:
        self._run, self._next = run, min(start, run.step)
        self._groups = [group.name for group in run.plan.groups]
        self._evaluations = {step: values for step, values in _known_evaluations(run) if step >= self._next}
        self._logged = {name: _count_before(rows, self._next) for name, rows in run.logged.items()}

    def add_evaluation(self, values: dict[str, float]) -> None:
        """Keep what was measured after the newest update; the row of that update will hold it."""
        self._evaluations.setdefault(max(self._run.step - 1, 0), {}).update(values)

    def take(self, *, all_of_them: bool = False, at_end: bool = False) -> Iterator[Row]:
        """The rows of the updates whose loss is known by now, each followed by what callbacks have logged after it.

        So the rows have the same order in whatever blocks they are taken.

        Args:
            all_of_them: Also of the newest update; else it waits for an evaluation that may come.
            at_end: Also what was logged after updates whose loss is not known.
        """
        run = self._run
        others = self._others()
        yield from self._take_others(others, self._next)
        losses, rates, norms = run.measured(self._next)
        stop = min(self._next + len(losses), run.step if all_of_them else run.step - 1)
        for place, step in enumerate(range(self._next, stop)):
            values = {"loss": float(losses[place])}
            values |= self._by_group(RATE, rates[place])
            values |= {name: norm for name, norm in self._by_group(GRAD_NORM, norms[place]).items() if norm == norm}
            yield Row(step, values | self._evaluations.pop(step, {}))
            yield from self._take_others(others, step + 1)
        self._next = max(self._next, stop)
        if at_end:
            yield from self._take_others(others, math.inf)

    def _others(self) -> deque[Row]:
        """What callbacks and metrics have logged, and no row has yet, in the order of updates."""
        found = [
            Row(max(int(updates) - 1, 0), {LOGGED + name: number})
            for name, rows in self._run.logged.items()
            for updates, number in rows[self._logged.get(name, 0) :].tolist()
        ]
        return deque(sorted(found, key=lambda row: row.step))

    def _take_others(self, others: deque[Row], stop: float) -> Iterator[Row]:
        """The rows of updates before ``stop`` that come beside that of the update itself: evaluations, what was logged.

        Args:
            others: From ``_others``; loses what is taken.
            stop: An update whose own row has not been given.
        """
        for step in sorted(step for step in self._evaluations if step < min(stop, self._next)):
            yield Row(step, self._evaluations.pop(step))
        while others and others[0].step < stop:
            row = others.popleft()
            for name in row.values:
                self._logged[name.removeprefix(LOGGED)] = self._logged.get(name.removeprefix(LOGGED), 0) + 1
            yield row

    def _by_group(self, prefix: str, numbers: Float64) -> dict[str, float]:
        return {prefix + name: number for name, number in zip(self._groups, numbers.tolist(), strict=True)}


def _known_evaluations(run: RunHandle) -> Iterator[tuple[int, dict[str, float]]]:
    """The evaluations that a run which goes on has made before, with the updates that they followed."""
    averages = run.ema_accuracies
    for place, accuracy in enumerate(run.accuracies.tolist()):
        values = {"accuracy": accuracy}
        if place < len(averages):
            values["ema_accuracy"] = float(averages[place])
        yield min((place + 1) * run.steps_per_epoch, run.step) - 1, values


def evaluation_values(accuracy: float, ema_accuracy: float | None) -> dict[str, float]:
    """The numbers of an evaluation, by name; those that are not known are left out."""
    values = {"accuracy": accuracy, "ema_accuracy": math.nan if ema_accuracy is None else ema_accuracy}
    return {name: value for name, value in values.items() if value == value}


def _count_before(rows: Float64, start: int) -> int:
    """How many of the rows (updates made, number) belong to updates before ``start``."""
    return int((rows[:, 0] <= start).sum()) if start else 0
