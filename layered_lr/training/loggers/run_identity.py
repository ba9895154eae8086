"""What a run is known by, so that it has the same log when it goes on."""

from __future__ import annotations

from layered_lr.training.run_handle import RunHandle
from layered_lr.training.run_mark import read_mark


def identity_of(run: RunHandle) -> str | None:
    """The identifier of the run's folder; None where it has no folder."""
    mark = None if run.folder is None else read_mark(run.folder)
    return None if mark is None else mark.run
