"""Writes a run into its folder while it goes on: recipe, plan, versions, metrics, events, checkpoints."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from layered_lr.arrays import Float64
from layered_lr.console import say
from layered_lr.errors import CheckpointError, LayeredLRError
from layered_lr.files import write_whole
from layered_lr.plans.plan import Plan
from layered_lr.spec.spec import RUN_TABLE
from layered_lr.state.training_state import TrainingState
from layered_lr.training.cadence import cadence
from layered_lr.training.grouped_options import Checkpoints
from layered_lr.training.history import History
from layered_lr.training.options import RunOptions
from layered_lr.training.run_folder import PLAN, RECIPE, RunFolder

_BLOCK_ROWS = 1 << 12  # of metrics, to make text of at a time


class RunLog:
    """Writes down a run as it goes.

    Where a checkpoint or a row cannot be written (a full disk), the run says so once on stderr and goes on: what it has
    computed is worth more than the file. The checkpoints before stay as they were.

    Args:
        folder: The run's folder, open.
        plan: The plan of the whole run.
        options: The run's options.
        about: What each checkpoint says about the run, as plain tables.
        step: Updates made before, where a run goes on; None for a new run.
        changed: Whether recipe and plan differ from those in the folder, and must be written.

    Attributes:
        path: The folder's.
        checkpoint_step: After how many updates the newest checkpoint was written, or tried.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        options: RunOptions,
        about: Mapping[str, Any],
        step: int | None = None,
        changed: bool = True,
    ) -> None:
        self.folder, self.plan, self.about = folder, plan, dict(about)
        settings = options.checkpoints or Checkpoints()
        self.checkpoints = folder.checkpoints(settings.keep, settings.keep_best)
        self.path = folder.path
        self._cadence = cadence(settings.every)
        self.checkpoint_step, self._written_at = step or 0, time.monotonic()
        self._rows = step or 0
        self._logged: dict[str, int] = {}  # how many rows of each name are in the file
        self._failed: set[str] = set()
        if step is None or changed:
            self._describe(options)
        self._begin_metrics()

    def _describe(self, options: RunOptions) -> None:
        recipe = {**self.plan.spec.to_dict(), RUN_TABLE: _recipe_table(options)}
        about = {"versions": self.about["versions"], "run": self.about["run"], "not written": options.unwritten()}
        _write(self.path / PLAN, json.dumps({**self.plan.to_dict(), **about}, indent=1))
        _write(self.path / "plan.txt", str(self.plan) + "\n")
        _write(self.path / RECIPE, tomli_w.dumps(recipe))  # the last one: with it there is a run

    def _begin_metrics(self) -> None:
        self.folder.begin_metrics(["loss", *(f"rate: {group.name}" for group in self.plan.groups)], self._rows)

    def begin_logged(self, history: History) -> None:
        """Make the file of logged numbers hold exactly what a history has."""
        self._logged = {}
        if history.logged or self.folder.has_logged:
            self._try("logged numbers", self.folder.begin_logged)
            self._add_logged(history)

    def go_back(self, step: int, history: History) -> None:
        """Forget what was measured from ``step`` on: the run measures it again.

        Args:
            step: Where the run goes on.
            history: Of the run up to there.
        """
        self._rows = min(self._rows, step)
        self._try("metrics", self._begin_metrics)
        self.begin_logged(history)

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether it is time for a checkpoint after ``step`` updates."""
        seconds = time.monotonic() - self._written_at
        return self._cadence.is_due(step, self.checkpoint_step, steps_per_epoch, seconds)

    def event(self, what: str, **values: Any) -> None:
        """Append to the run's events."""
        self._try("events", lambda: self.folder.event(what, **values))

    def add(self, history: History) -> None:
        """Append the metrics of those updates whose loss and rates are known by now, and what callbacks have logged."""
        self._add_logged(history)
        while (start := self._rows) < len(history.rates):
            rates = history.rates.numbers(start)[:_BLOCK_ROWS].tolist()
            losses = history.losses.numbers(start)[: len(rates)].tolist()
            steps = range(start, start + len(rates))
            rows = [[step, loss, *row] for step, loss, row in zip(steps, losses, rates, strict=True)]
            if not self._try("metrics", functools.partial(self.folder.add_metrics, rows)):
                return
            self._rows += len(rows)

    def _add_logged(self, history: History) -> None:
        if all(len(rows) == self._logged.get(name, 0) for name, rows in history.logged.items()):
            return
        rows = [
            (int(step), name, number)
            for name, series in history.logged.items()
            for step, number in series.numbers(self._logged.get(name, 0)).tolist()
        ]
        if self._try("logged numbers", lambda: self.folder.add_logged(sorted(rows, key=lambda row: row[0]))):
            self._logged = {name: len(series) for name, series in history.logged.items()}

    def checkpoint(self, state: TrainingState, metric: float | None, **about: Any) -> Path | None:
        """Write a checkpoint.

        Args:
            state: The session's, with the run's history.
            metric: The accuracy, if it was measured right here.
            about: What else to say of the run.

        Returns:
            Its folder; None where it could not be written.
        """
        self.checkpoint_step, self._written_at = state.step, time.monotonic()
        full = replace(state, about={**self.about, **about})
        written: list[Path] = []
        self._try("checkpoint", lambda: written.append(self.checkpoints.write(full, metric)))
        return written[0] if written else None

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later updates: no training can go on from them."""
        self.checkpoints.remove_after(step)

    def report(self, text: str) -> None:
        """Write what the run came to."""
        self._try("report", lambda: _write(self.path / "report.txt", text + "\n"))

    def _try(self, what: str, write: Callable[[], Any]) -> bool:
        try:
            write()
        except CheckpointError as error:
            if what not in self._failed:
                say(f"{error} The run goes on without.")
            self._failed.add(what)
            return False
        self._failed.discard(what)
        return True


def _recipe_table(options: RunOptions) -> dict[str, Any]:
    """The options as a recipe's table: without the folder itself and the result's file, and TOML has no None."""
    run = {name: value for name, value in options.to_dict().items() if name != "save"}
    run = {name: _without_none(value) if isinstance(value, dict) else value for name, value in run.items()}
    run.get("checkpoints", {}).pop("folder", None)
    return _without_none(run)


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, [text.encode()])
    except LayeredLRError as error:
        raise CheckpointError(str(error)) from None


def metric_of(accuracies: Float64, at_end_of_epoch: bool) -> float | None:
    """What a checkpoint is rated by: the test accuracy, where it was just measured."""
    return float(accuracies[-1]) if at_end_of_epoch and len(accuracies) and np.isfinite(accuracies[-1]) else None
