"""Writes a run into its folder while it goes on: recipe, plan, versions, metrics, events, checkpoints."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from layered_lr.console import say
from layered_lr.errors import CheckpointError, LayeredLRError
from layered_lr.files import read_plain
from layered_lr.outputs import write_whole
from layered_lr.plans.plan import Plan
from layered_lr.spec.spec import RUN_TABLE
from layered_lr.state.training_state import TrainingState
from layered_lr.strict_json import json_text
from layered_lr.training.cadence import cadence
from layered_lr.training.grouped_options import Checkpoints
from layered_lr.training.history import History, mean_loss
from layered_lr.training.in_file import command_to_go_on
from layered_lr.training.metric_names import EMA_ACCURACY
from layered_lr.training.options import RunOptions
from layered_lr.training.run_folder import METRICS, PLAN, PLAN_TEXT, RECIPE, REPORT, RunFolder

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
        way_on: The command that goes on with the run.
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
        self._best_metric, self._best_sign = settings.best_metric, 1.0 if settings.best_mode == "max" else -1.0
        self.path = folder.path
        self.way_on = command_to_go_on(folder.said, options.to_dict(), plan.spec.to_dict())
        self._cadence = cadence(settings.every)
        self.checkpoint_step, self._written_at = step or 0, time.monotonic()
        self._rows = step or 0
        self._logged: dict[str, int] = {}  # how many rows of each name are in the file
        self._failed: set[str] = set()
        self._try("recipe and plan", lambda: self._describe(options, step is None or changed))

    def _describe(self, options: RunOptions, changed: bool) -> None:
        """Write down what the run does from now on: first into the mark, then into the files that people read."""
        spec, mark = self.plan.spec.to_dict(), self.folder.mark
        about = {"versions": self.about["versions"], "run": self.about["run"], "not written": options.unwritten()}
        texts = {
            PLAN: json_text({**self.plan.to_dict(), **about}, indent=1),
            PLAN_TEXT: str(self.plan) + "\n",
            RECIPE: tomli_w.dumps({**spec, RUN_TABLE: _recipe_table(options)}),
        }
        for name in (PLAN, PLAN_TEXT):
            if name in mark.digests and _digest_of(self.path / name) != mark.digests[name]:
                say(f"{self.path / name}: is not as the run wrote it (damaged, edited or missing); written again.")
        if not changed and os.path.isfile(self.path / RECIPE):
            del texts[RECIPE]  # one that somebody has edited stays, and is not taken
        digests = mark.digests | {name: _digest(text.encode()) for name, text in texts.items()}
        self.folder.write_mark(
            replace(
                mark,
                run=self.about["run"],
                spec=spec,
                options=options.to_dict(),
                unwritten=tuple(options.unwritten()),
                digests=digests,
            )
        )
        for name, text in texts.items():
            _write(self.path / name, text)

    def begin(self, history: History, is_new: bool) -> None:
        """Make the files of numbers hold exactly what a history has; say where they did not.

        Args:
            history: Of the run up to here.
            is_new: Whether the run has just begun, or has other groups than before: the files are new, too.
        """
        self._begin_metrics(history, compares=not is_new)
        self._begin_logged(history)

    def _begin_metrics(self, history: History, compares: bool = False) -> bool:
        columns = ["loss", *(f"rate: {group.name}" for group in self.plan.groups)]
        as_before = [True]

        def begin() -> None:
            as_before[0] = self.folder.begin_metrics(columns, self._rows_of(history, 0, self._rows))

        if not self._try("metrics", begin):
            return False
        if compares and self._rows and not as_before[0]:
            say(
                f"{self.path / METRICS}: is not as the run wrote it (damaged, edited, or with a hole in it); written "
                "again from the checkpoint."
            )
        return True

    def _rows_of(self, history: History, start: int, stop: int) -> Iterator[Sequence[float]]:
        """What was measured at updates, in blocks, so that a long run needs no memory for it."""
        for first in range(start, stop, _BLOCK_ROWS):
            rates = history.rates.numbers(first)[: min(_BLOCK_ROWS, stop - first)].tolist()
            losses = history.losses.numbers(first)[: len(rates)].tolist()
            for step, loss, row in zip(range(first, first + len(rates)), losses, rates, strict=True):
                yield [step, loss, *row]

    def _begin_logged(self, history: History) -> None:
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
        self._begin_metrics(history)
        self._begin_logged(history)

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether it is time for a checkpoint after ``step`` updates."""
        seconds = time.monotonic() - self._written_at
        return self._cadence.is_due(step, self.checkpoint_step, steps_per_epoch, seconds)

    def event(self, what: str, /, **values: Any) -> None:
        """Append to the run's events."""
        self._try("events", lambda: self.folder.event(what, **values))

    def add(self, history: History) -> None:
        """Append the metrics of those updates whose loss and rates are known by now, and what callbacks have logged."""
        self._add_logged(history)
        while self._rows < len(history.rates):
            if not self.folder.has_metrics_open and not self._begin_metrics(history):
                return
            rows = list(self._rows_of(history, self._rows, min(self._rows + _BLOCK_ROWS, len(history.rates))))
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

    def checkpoint(
        self, state: TrainingState, metric: float | None, staying: Collection[int] = (), **about: Any
    ) -> Path | None:
        """Write a checkpoint.

        Args:
            state: The session's, with the run's history.
            metric: What ``rate`` says, if it was measured right here.
            staying: Steps whose checkpoints stay too.
            about: What else to say of the run.

        Returns:
            Its folder; None where it could not be written.
        """
        self.checkpoint_step, self._written_at = state.step, time.monotonic()
        full = replace(state, about={**self.about, **about})
        written: list[Path] = []

        def write() -> None:
            self.folder.check_there()
            written.append(self.checkpoints.write(full, metric, staying))

        self._try("checkpoint", write)
        if written and not self.folder.mark.has_checkpoints:
            self._try("mark", lambda: self.folder.write_mark(replace(self.folder.mark, has_checkpoints=True)))
        return written[0] if written else None

    def rate(self, history: History, step: int, epoch_began: int) -> float | None:
        """What the checkpoint at the end of an epoch is rated by, the higher the better; None where it is not known.

        Args:
            history: Of the run.
            step: Updates made.
            epoch_began: The first update of the epoch.
        """
        name, value, sign = self._best_metric, float("nan"), self._best_sign
        if name == "accuracy" and not len(history.accuracies):  # of targets that are no class numbers
            name, sign = "loss", -1.0
        if name == "accuracy":
            value = float(history.accuracies.numbers()[-1])
        elif name == EMA_ACCURACY and len(history.ema_accuracies):
            value = float(history.ema_accuracies.numbers()[-1])
        elif name == "loss":
            value = mean_loss(history.losses.numbers(max(epoch_began, 0)))
        elif (rows := history.logged.get(name)) is not None and int(rows.numbers()[-1][0]) == step:
            value = float(rows.numbers()[-1][1])
        return sign * value if np.isfinite(value) else None

    def remove_old(self, staying: Collection[int]) -> None:
        """Remove the checkpoints that are no longer kept, which a kill may have left.

        Args:
            staying: Steps of others that stay.
        """
        self._try("checkpoint", lambda: self.checkpoints.remove_old(self.checkpoint_step, staying))

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later updates: no training can go on from them."""
        self._try("checkpoint", lambda: self.checkpoints.remove_after(step))

    def report(self, text: str) -> None:
        """Write what the run came to."""
        self._try("report", lambda: self._write_report(text))

    def _write_report(self, text: str) -> None:
        self.folder.check_there()
        _write(self.path / REPORT, text + "\n")

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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(file: Path) -> str:
    """The digest of a file; empty where it is missing or cannot be read."""
    try:
        return _digest(read_plain(file))
    except OSError:
        return ""


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, [text.encode()])
    except LayeredLRError as error:
        raise CheckpointError(str(error)) from None
