"""What a run's newest checkpoint says beside its other files: gradient norms, and of which data the run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import CheckpointError
from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.state.state_files import read_about, read_history
from layered_lr.training.run_folder import CHECKPOINTS
from layered_lr.watching.run_record import RunRecord


class RunPast(NamedTuple):
    """What a checkpoint says.

    Args:
        data: The digest of the data; empty where no checkpoint says it.
        grad_norms: Each group's, shape (updates, groups); without rows where they were not measured.
        ema_accuracies: The moving average's, shape (epochs,).
    """

    data: str
    grad_norms: Float64
    ema_accuracies: Float64


def read_past(record: RunRecord) -> RunPast:
    """Read the newest checkpoint of a run that can be read; nothing is known where there is none."""
    groups = len(record.plan.groups)
    try:
        paths = CheckpointFolder(record.path / CHECKPOINTS).paths()
    except CheckpointError:
        paths = []
    for path in reversed(paths):
        try:
            about = read_about(path)["about"]
            history: Mapping[str, Any] = read_history(path)
        except CheckpointError:
            continue
        if about.get("run") == record.about.get("run"):
            return RunPast(
                data=str(about.get("data", "")),
                grad_norms=_table(history.get("grad_norms"), groups),
                ema_accuracies=_series(history.get("ema_accuracies")),
            )
    return RunPast("", np.empty((0, groups)), np.empty(0))


def _table(array: Any, groups: int) -> Float64:
    fits = isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape[1:] == (groups,)
    return array if fits else np.empty((0, groups))


def _series(array: Any) -> Float64:
    return array if isinstance(array, np.ndarray) and array.dtype == np.float64 and array.ndim == 1 else np.empty(0)
