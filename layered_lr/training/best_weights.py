"""Decides when a run ends early, from what it has measured, and keeps the weights of its best epoch."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from layered_lr.backend.series import Series
from layered_lr.backend.session import Session
from layered_lr.training.early_stop import EarlyStop
from layered_lr.training.history import History

RESTORED: Final = "restored"
ENDED: Final = (RESTORED, "not restored")
"""The events that say which weights a run has that has ended."""


class Watcher:
    """Looks at one metric after each epoch.

    All that it knows is in the run's history, so a run that goes on from a checkpoint decides as if it had never ended.

    Args:
        settings: What to look at.
    """

    def __init__(self, settings: EarlyStop) -> None:
        self.settings = settings
        self._end = None if settings.time_limit is None else time.monotonic() + float(settings.time_limit)

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end

    @property
    def time_is_over(self) -> str:
        """Why a run ends that is late, in words."""
        return f"the time limit of {self.settings.time_limit:g} s is over"

    def look(self, step: int, value: float, history: History, session: Session) -> None:
        """Take the metric's value after an epoch, and keep the weights if it is the best so far.

        Args:
            step: Updates made.
            value: NaN counts as no better.
            history: Of the run; gets the value and the weights.
            session: Whose weights they are.
        """
        is_better = self.is_best(value, history)
        history.watched.setdefault(self.settings.metric, Series(2)).add([[step, value]])
        if is_better and self.settings.restore_best:
            history.best_at = step
            history.best_weights = {name: np.array(array) for name, array in session.weights().items()}
            if session.extras.ema_decay is not None:
                history.best_average = {name: np.array(array) for name, array in session.ema_weights().items()}

    def look_within_epoch(self, step: int, value: float, history: History) -> None:
        """Take the metric's value where the run ends within an epoch: the last weights stay if they are the best.

        Args:
            step: Updates made.
            value: NaN counts as no better.
            history: Of the run; it keeps what was found, so that the run's folder says the same as its result.
        """
        history.better_at = step if self.is_best(value, history) else None

    def restores(self, history: History, step: int) -> bool:
        """Whether a run that ends here has the weights of its best epoch, and not its last ones.

        Args:
            history: Of the run.
            step: Updates made.
        """
        if not self.settings.restore_best or not history.best_weights or history.better_at == step:
            return False
        best = self.best_step(history)  # of what is looked at now; the weights may be the best of something else
        return best is not None and history.best_at in (None, best)  # None: a checkpoint of an older version

    def lost_step(self, history: History, step: int) -> int | None:
        """The best epoch's end where its weights are wanted and were not kept: before, the run had other settings."""
        best = self.best_step(history)
        if not self.settings.restore_best or best in (None, step) or history.better_at == step:
            return None
        return None if self.restores(history, step) else best

    def events(self, history: History, step: int) -> list[dict[str, Any]]:
        """What is said of the weights of a run that ends here: at most one event, none where they are the last ones.

        Args:
            history: Of the run.
            step: Updates made.
        """
        if (lost := self.lost_step(history, step)) is not None:
            return [{"event": ENDED[1], "step": step, "best_step": lost, "why": "the weights of then were not kept"}]
        best = self.best_step(history)
        if best in (None, step) or not self.restores(history, step):
            return []
        return [{"event": RESTORED, "step": step, "best_step": best, "metric": self.settings.metric}]

    def reason(self, history: History) -> str | None:
        """Why the run ends here, in words; None where it goes on."""
        rows = self._rows(history)
        if not rows:
            return None
        value, name = rows[-1][1], self.settings.metric
        if (target := self.settings.target) is not None and self._reaches(value, target):
            return f"{name} is {value:g}, and the target was {target:g}"
        if self.settings.patience is None:
            return None
        best = self._best_place(rows)
        waited = len(rows) if best is None else len(rows) - 1 - best
        if waited < self.settings.patience:
            return None
        said = "no value of it was a number" if best is None else f"the best was {rows[best][1]:g}"
        return f"{name} has not become better in {waited} epochs; {said}"

    def is_best(self, value: float, history: History) -> bool:
        """Whether a value is better than all that were looked at."""
        rows = self._rows(history)
        best = self._best_place(rows)
        return self._is_better(value, None if best is None else rows[best][1])

    def best_step(self, history: History) -> int | None:
        """After how many updates the metric was best; None where it never was a number."""
        rows = self._rows(history)
        best = self._best_place(rows)
        return None if best is None else int(rows[best][0])

    def _rows(self, history: History) -> list[list[float]]:
        rows = history.watched.get(self.settings.metric)
        return [] if rows is None else rows.numbers().tolist()

    def _best_place(self, rows: list[list[float]]) -> int | None:
        """Which row has the best value: a later one is better by more than ``min_delta``, or first at the target."""
        best = None
        for place, (_, value) in enumerate(rows):
            if self._is_better(value, None if best is None else rows[best][1]):
                best = place
        return best

    def _is_better(self, value: float, best: float | None) -> bool:
        if np.isnan(value):
            return False
        if best is None:
            return True
        target = self.settings.target
        if target is not None and self._reaches(value, target) and not self._reaches(best, target):
            return True  # else the run would end at its target, and give back weights that do not reach it
        if self.settings.mode == "max":
            return value > best + self.settings.min_delta
        return value < best - self.settings.min_delta

    def _reaches(self, value: float, target: float) -> bool:
        return value >= target if self.settings.mode == "max" else value <= target
