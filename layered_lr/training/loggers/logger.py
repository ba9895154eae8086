"""The base of all loggers: when a log gets its rows, and what it does when the run goes back or on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from layered_lr.training.callback import Callback
from layered_lr.training.events import (
    BeginEvent,
    CheckpointEvent,
    DivergenceEvent,
    EndEvent,
    EpochEvent,
    EvaluationEvent,
    UpdateEvent,
)
from layered_lr.training.loggers.rows import Row, RowStream, evaluation_values
from layered_lr.training.run_handle import RunHandle
from layered_lr.yes_or_no import check_yes_or_no

_SECONDS = 2.0  # between two looks at what is known by now, so that an update costs nothing


class Logger(Callback):
    """A callback that writes a row of each update: its loss, each group's rate and gradient norm, and accuracies.

    Losses are taken when the run has read them, so that logging waits for nothing. A run that goes on continues the
    same log: rows of updates that it makes again take the place of the earlier ones, and rows that are missing are
    written from the run's history.

    Args:
        grad_norms: Whether to measure each group's gradient norm at each update.

    Raises:
        SpecError: ``grad_norms`` is neither true nor false.
    """

    writes = True
    asks_model: bool = False
    """Whether it reads the weights, or what the model answers: where each process holds a part, that needs all."""
    file: Path | None = None
    """The one file that it writes; None where it writes a folder, or elsewhere."""

    def __init__(self, grad_norms: bool = True) -> None:
        self.wants_grad_norms = check_yes_or_no(type(self).__name__, "grad_norms", grad_norms)
        self._stream: RowStream | None = None
        self._looked_at = 0.0

    def _open(self, run: RunHandle) -> int:
        """Open the log.

        Returns:
            The first update whose row the log lacks.
        """
        raise NotImplementedError

    def _add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        raise NotImplementedError

    def _go_back(self, run: RunHandle) -> int:
        """Drop the rows of updates from ``run.step`` on: the run makes them again.

        Returns:
            The first update whose row the log lacks now.
        """
        raise NotImplementedError

    def _close(self) -> None:
        """Write nothing more."""

    def _values_of(self, event: EvaluationEvent) -> dict[str, float]:
        """The numbers of an evaluation, by name."""
        return evaluation_values(event.accuracy, event.ema_accuracy)

    def on_begin(self, event: BeginEvent) -> None:
        """Open the log, and write what it lacks of a run that goes on."""
        self._stream = RowStream(event.run, self._open(event.run))
        self._flush()

    def on_update(self, event: UpdateEvent) -> None:
        """Write what is known by now, from time to time."""
        if event.step % 16 == 0 and time.monotonic() - self._looked_at > _SECONDS:
            self._flush(all_of_them=False)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Keep the accuracies for the row of the newest update."""
        if self._stream is not None:
            self._stream.add_evaluation(self._values_of(event))

    def on_epoch(self, event: EpochEvent) -> None:
        """Write all that is known."""
        self._flush()

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """Write all that is known: a run that goes on from the checkpoint finds it in the log."""
        self._flush()

    def on_divergence(self, event: DivergenceEvent) -> None:
        """Take back the rows of the updates that a rollback has undone."""
        if event.action == "rollback" and self._stream is not None:
            self._stream = RowStream(event.run, self._go_back(event.run))
            self._flush()

    def on_end(self, event: EndEvent) -> None:
        """Write the rest, and close the log."""
        try:
            self._flush(at_end=True)
        finally:
            self._stream = None
            self._close()

    def _flush(self, *, all_of_them: bool = True, at_end: bool = False) -> None:
        self._looked_at = time.monotonic()
        if self._stream is not None and (rows := list(self._stream.take(all_of_them=all_of_them, at_end=at_end))):
            self._add(rows)
