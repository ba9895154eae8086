"""A table of the runs in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from layered_lr.errors import CheckpointError
from layered_lr.files import as_path
from layered_lr.printed import harmless
from layered_lr.reports.tables import ReportTable, shortened
from layered_lr.strict_json import json_text
from layered_lr.watching.run_record import RunRecord, find_runs, is_being_written, read_record

_LONGEST_NOTE = 90
_NUMBERS = frozenset(["updates", "best accuracy", "last accuracy", "best test loss", "last test loss", "last loss"])


@dataclass(frozen=True)
class RunSummary:
    """One run, in a line.

    Args:
        name: The run's folder, as seen from the folder that was asked for.
        state: ``"running"``, ``"finished"``, ``"stopped"`` (it can go on), or ``"damaged"``.
        backend: What trains; empty where it is not known.
        model: The model's name or import path; empty where it cannot be written down.
        updates: Made and written down.
        total_updates: Of the whole run; None where it is not known.
        best_accuracy: The highest on the test set; None without one.
        last_accuracy: The last one; None without one.
        last_loss: Of the last update; None without one.
        written: When something was last written there, in local time, ``YYYY-MM-DD HH:MM``; empty where unknown.
        note: Why it ended early, or what is damaged.
        best_test_loss: The lowest on the test set, of a run whose targets are no class numbers; None without one.
        last_test_loss: The last one; None without one.

    Example:
        >>> import layered_lr as ll
        >>> def best_of(folder):
        ...     return max(ll.list_runs(folder), key=lambda run: run.best_accuracy or 0.0).name
    """

    name: str
    state: str
    backend: str
    model: str
    updates: int
    total_updates: int | None
    best_accuracy: float | None
    last_accuracy: float | None
    last_loss: float | None
    written: str
    note: str
    best_test_loss: float | None = None
    last_test_loss: float | None = None


@dataclass(frozen=True)
class RunList:
    """The runs of a folder: a table as text, and each of them as data.

    Args:
        folder: Where they are.
        runs: Sorted by name.

    Example:
        >>> import layered_lr as ll
        >>> def unfinished(folder):
        ...     return [run.name for run in ll.list_runs(folder) if run.state == "stopped"]
    """

    folder: Path
    runs: tuple[RunSummary, ...]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[RunSummary]:
        return iter(self.runs)

    def to_json(self) -> str:
        """The runs as JSON: a list of tables."""
        return json_text([asdict(run) for run in self.runs], indent=1)

    def __str__(self) -> str:
        if not self.runs:
            return harmless(f"{self.folder}: holds no run.")
        return run_table(self.runs).text()


def list_runs(folder: str | Path) -> RunList:
    """Say what the runs of a folder came to. Nothing there is changed, imported or run.

    A run is what ``ll.run(checkpoints=...)`` has made: its folder holds the library's mark. Folders in folders are
    looked through too, four levels deep; other folders are passed over.

    Args:
        folder: Where the runs are, or the folder of one run.

    Raises:
        SpecError: ``folder`` is no path.
        CheckpointError: There is no such folder, or it cannot be read.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> options = dict(model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = ll.run(ll.Spec(ll.SGD(0.1)), checkpoints=f"{folder}/first", **options)
        ...     [(run.name, run.state, run.updates, run.best_accuracy) for run in ll.list_runs(folder)]
        [('first', 'finished', 2, 0.5)]
    """
    where = as_path("list_runs: folder", folder)
    return RunList(where, tuple(summary_of(path, where) for path in find_runs(where)))


def summary_of(path: Path, where: Path) -> RunSummary:
    """A run in a line; one that cannot be read is damaged, and the note says why.

    Args:
        path: The run's folder.
        where: The folder that its name is seen from.
    """
    name = os.path.relpath(path, where)
    name = path.name or str(path) if name == "." else name
    try:
        record = read_record(path, only_last=True)
    except CheckpointError as error:
        state = "running" if is_being_written(path) else "damaged"  # one that is just being made has no plan yet
        return RunSummary(name, state, "", "", 0, None, None, None, None, "", str(error))
    return summary_from(name, record)


def summary_from(name: str, record: RunRecord) -> RunSummary:
    """A run in a line, from what its folder says."""
    accuracies = [record.accuracies[step] for step in sorted(record.accuracies)]
    test_losses = [record.test_losses[step] for step in sorted(record.test_losses)]
    known = record.metrics.losses[np.isfinite(record.metrics.losses)]
    return RunSummary(
        name=name,
        state="damaged" if record.metrics.damage else record.state,
        backend=str(record.options.get("backend", "")),
        model=str(record.options.get("model", "")),
        updates=record.updates,
        total_updates=record.plan.total_steps,
        best_accuracy=max(accuracies, default=None),
        last_accuracy=accuracies[-1] if accuracies else None,
        last_loss=float(known[-1]) if len(known) else None,
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime(record.written_at)) if record.written_at else "",
        note=record.note,
        best_test_loss=min(test_losses, default=None),
        last_test_loss=test_losses[-1] if test_losses else None,
    )


def best_of(run: RunSummary) -> str:
    """The best that a run has measured, in words: its accuracy, or else its test loss; empty where it has neither."""
    if run.best_accuracy is not None:
        return f"best accuracy {run.best_accuracy:.4f}"
    return "" if run.best_test_loss is None else f"best test loss {run.best_test_loss:.4f}"


def run_table(runs: Sequence[RunSummary]) -> ReportTable:
    """The runs as a table; columns that say nothing are left out."""
    columns = {
        "run": [run.name for run in runs],
        "state": [run.state for run in runs],
        "updates": [_of(run.updates, run.total_updates) for run in runs],
        "best accuracy": [_number(run.best_accuracy) for run in runs],
        "last accuracy": [_number(run.last_accuracy) for run in runs],
        "best test loss": [_number(run.best_test_loss) for run in runs],
        "last test loss": [_number(run.last_test_loss) for run in runs],
        "last loss": [_number(run.last_loss) for run in runs],
        "backend": [run.backend for run in runs],
        "model": [run.model for run in runs],
        "written": [run.written for run in runs],
        "note": [shortened(run.note, _LONGEST_NOTE) for run in runs],
    }
    said = {name: cells for name, cells in columns.items() if name in ("run", "state") or any(cells)}
    return ReportTable(list(said), list(zip(*said.values(), strict=True)), _NUMBERS & set(said))


def _of(made: int, total: int | None) -> str:
    return f"{made}" if total is None else f"{made} of {total}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
