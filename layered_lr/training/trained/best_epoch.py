"""After which update a result's weights were those of the run, and what was measured then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.plans.plan import Plan
from layered_lr.training.best_weights import RESTORED

ACCURACY, OF_AVERAGE = "test accuracy", "test accuracy of the average"


class Told(Protocol):
    """What is read of a run: a ``Result``."""

    @property
    def plan(self) -> Plan:
        """Of the run."""

    @property
    def accuracies(self) -> Float64:
        """After each epoch."""

    @property
    def ema_accuracies(self) -> Float64:
        """Of the moving average."""

    @property
    def logged(self) -> dict[str, Float64]:
        """By callbacks and metrics."""

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """What happened to the run."""


def step_of_weights(run: Told) -> int | None:
    """After how many updates the run had the weights of its result; None where they are those after the last one."""
    for event in reversed(run.events):
        if event.get("event") == RESTORED:
            step = event.get("best_step")
            return step if isinstance(step, int) and step > 0 else None
    return None


def measured_after(run: Told, step: int) -> dict[str, float]:
    """What was measured at the end of an epoch, by name: accuracies, metrics, and what callbacks have logged.

    Args:
        run: The run.
        step: Updates made.
    """
    found: dict[str, float] = {}
    epochs, rest = divmod(step, run.plan.steps_per_epoch or 1)
    for name, series in ((ACCURACY, run.accuracies), (OF_AVERAGE, run.ema_accuracies)):
        if rest == 0 and 0 < epochs <= len(series):
            found[name] = float(series[epochs - 1])
    for name, rows in run.logged.items():
        there = rows[rows[:, 0] == step] if len(rows) else np.empty((0, 2))
        if len(there):
            found[name] = float(there[-1, 1])
    return found
