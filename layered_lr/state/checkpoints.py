"""The checkpoints of one run: it keeps the newest ones and the best one, and finds the newest that can be read."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from layered_lr.errors import CheckpointError
from layered_lr.state.state_files import TEMPORARY, read_about, read_state, write_state
from layered_lr.state.training_state import TrainingState

_PREFIX = "step-"


class Found(NamedTuple):
    """The newest checkpoint that can be read.

    Args:
        path: Its folder.
        state: Its state.
        damaged: For each newer checkpoint that cannot be read, the reason in words.
    """

    path: Path
    state: TrainingState
    damaged: tuple[str, ...]


class CheckpointFolder:
    """Checkpoints in a folder; each checkpoint is a folder ``step-...`` in it.

    Args:
        folder: The folder, which the first ``write`` creates.
        keep: How many of the newest checkpoints are kept, >= 1.
        keep_best: Whether the checkpoint with the highest metric is kept too.
    """

    def __init__(self, folder: Path, keep: int = 3, keep_best: bool = True) -> None:
        self.folder, self.keep, self.keep_best = folder, keep, keep_best

    def paths(self) -> list[Path]:
        """Return the folders of all checkpoints, readable or not, the oldest first."""
        steps = {path: path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*")}
        return sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))

    def write(self, state: TrainingState, metric: float | None = None) -> Path:
        """Write a checkpoint, and then remove those that are no longer kept.

        Args:
            state: The state to write.
            metric: A number that is higher for a better model; None if it is not known.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: It cannot be written. The checkpoints before it are unchanged.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: this folder cannot be made: {error.strerror or error}.") from None
        path = self.folder / f"{_PREFIX}{state.step:08d}"
        write_state(path, state, metric)
        self._remove_old(path)
        return path

    def read_newest(self, run: str | None = None) -> Found:
        """Read the newest checkpoint that can be read, and say what is wrong with the newer ones.

        Args:
            run: Only checkpoints whose ``about`` has this value of ``"run"``; None takes any.

        Raises:
            CheckpointError: There is no checkpoint, or none that can be read.
        """
        damaged: list[str] = []
        for path in reversed(self.paths()):
            try:
                state = read_state(path)
                if state.step != int(path.name.removeprefix(_PREFIX)):
                    raise CheckpointError(f"{path}: its state is of another step, after {state.step} updates.")
                if run is not None and state.about.get("run") != run:
                    raise CheckpointError(f"{path}: its state is of another run.")
                return Found(path, state, tuple(damaged))
            except CheckpointError as error:
                damaged.append(str(error))
        if damaged:
            raise CheckpointError(f"{self.folder}: none of its {len(damaged)} checkpoints can be read: {damaged[0]}")
        raise CheckpointError(f"{self.folder}: there is no checkpoint in this folder.")

    def find_best(self) -> Path | None:
        """Return the checkpoint with the highest metric, the first of equal ones; None if none has a metric."""
        rated = [
            (metric, -int(path.name.removeprefix(_PREFIX)), path)
            for path in self.paths()
            if (metric := _read_metric(path)) > -math.inf
        ]
        return max(rated)[2] if rated else None

    def remove_after(self, step: int) -> None:
        """Remove all checkpoints of updates after ``step``."""
        for path in self.paths():
            if int(path.name.removeprefix(_PREFIX)) > step:
                shutil.rmtree(path, ignore_errors=True)

    def clean(self) -> None:
        """Remove the unfinished files of a killed run; call it only while no other run writes to this folder."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove_old(self, newest: Path) -> None:
        paths = self.paths()
        staying = {newest, *paths[-self.keep :]}
        if self.keep_best and (best := self.find_best()):
            staying.add(best)
        for path in paths:
            if path not in staying:
                shutil.rmtree(path, ignore_errors=True)


def _read_metric(path: Path) -> float:
    try:
        metric = read_about(path)["metric"]
    except CheckpointError:
        return -math.inf
    return -math.inf if metric is None else float(metric)
