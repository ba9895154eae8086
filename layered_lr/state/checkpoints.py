"""The checkpoints of one run: it keeps the newest ones and the best one, and finds the newest that can be read."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from layered_lr.errors import CheckpointError
from layered_lr.outputs import TEMPORARY, describe_obstacle
from layered_lr.state.state_files import FILES, read_about, read_state, write_state
from layered_lr.state.training_state import TrainingState

_NAME = re.compile(r"step-(\d{8,18})", re.ASCII)


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

    Only what this class has made is ever removed: folders with such a name that hold a state's files and no others.

    Args:
        folder: The folder, which the first ``write`` creates; the folder around it must exist.
        keep: How many of the newest checkpoints are kept, >= 1.
        keep_best: Whether the checkpoint with the highest metric is kept too.

    Attributes:
        maps_files: Whether the arrays of states that are read stay in their files, until they are used. A file that is
            removed meanwhile stays on the disk for them.
    """

    def __init__(self, folder: Path, keep: int = 3, keep_best: bool = True) -> None:
        self.folder, self.keep, self.keep_best = folder, keep, keep_best
        self.maps_files = False

    def paths(self) -> list[Path]:
        """Return the folders of all checkpoints, readable or not, the oldest first.

        Raises:
            CheckpointError: The folder is there and cannot be read.
        """
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: cannot be read: {error.strerror or error}. Make the checkpoints readable first."
            ) from None
        return sorted((self.folder / name for name in names if _is_name(name)), key=step_of)

    def path_of(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` updates, whether it is there or not."""
        return self.folder / f"step-{step:08d}"

    def write(self, state: TrainingState, metric: float | None = None, staying: Collection[int] = ()) -> Path:
        """Write a checkpoint, and then remove those that are no longer kept.

        Args:
            state: The state to write.
            metric: A number that is higher for a better model; None if it is not known.
            staying: Steps whose checkpoints are kept too.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: It cannot be written. The checkpoints before it are unchanged.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: this folder cannot be made: {error.strerror or error}.") from None
        path = self.path_of(state.step)
        if os.path.lexists(path) and not _is_removable(path):
            kind = describe_obstacle(path) or "a file"
            raise CheckpointError(f"{path}: there is {kind} of somebody else, which is never written over.")
        write_state(path, state, metric)
        self.remove_old(state.step, staying)
        return path

    def read_newest(
        self, run: str | None = None, check: Callable[[TrainingState], object] = lambda state: None
    ) -> Found:
        """Read the newest checkpoint that can be read, and say what is wrong with the newer ones.

        Args:
            run: Only checkpoints whose ``about`` has this value of ``"run"``; None takes any.
            check: Raises ``CheckpointError`` for a state that cannot be taken.

        Raises:
            CheckpointError: There is no checkpoint, or none that can be read.
        """
        damaged: list[str] = []
        for path, found in self.read_all(run, check):
            if isinstance(found, TrainingState):
                return Found(path, found, tuple(damaged))
            damaged.append(str(found))
        if damaged:
            raise CheckpointError(f"{self.folder}: none of its {len(damaged)} checkpoints can be read: {damaged[0]}")
        raise CheckpointError(f"{self.folder}: there is no checkpoint in this folder.")

    def read_all(
        self, run: str | None = None, check: Callable[[TrainingState], object] = lambda state: None
    ) -> Iterator[tuple[Path, TrainingState | CheckpointError]]:
        """Read all checkpoints, the newest first; where one cannot be read, the error stands in its place.

        Args:
            run: As in ``read_newest``.
            check: As in ``read_newest``.
        """
        for path in reversed(self.paths()):
            try:
                state = read_state(path, self.maps_files)
                if state.step != step_of(path):
                    raise CheckpointError(f"{path}: its state is of another step, after {state.step} updates.")
                if run is not None and state.about.get("run") != run:
                    raise CheckpointError(f"{path}: its state is of another run.")
                try:
                    check(state)
                except CheckpointError as error:
                    raise CheckpointError(f"{path}: {error}") from None
                yield path, state
            except CheckpointError as error:
                yield path, error

    def find_best(self) -> Path | None:
        """Return the checkpoint with the highest metric, the first of equal ones; None if none has a metric."""
        rated = [(metric, -step_of(path), path) for path in self.paths() if (metric := _read_metric(path)) > -math.inf]
        return max(rated)[2] if rated else None

    def remove_after(self, step: int) -> None:
        """Remove all checkpoints of updates after ``step``."""
        for path in self.paths():
            if step_of(path) > step:
                self._remove(path)

    def remove_old(self, newest: int, staying: Collection[int] = ()) -> None:
        """Remove the checkpoints that are no longer kept.

        Args:
            newest: The step of a checkpoint that stays in any case.
            staying: Steps of others that stay.
        """
        paths = self.paths()
        kept = {self.path_of(newest), *map(self.path_of, staying), *paths[-self.keep :]}
        if self.keep_best and (best := self.find_best()):
            kept.add(best)
        for path in paths:
            if path not in kept:
                self._remove(path)

    def clean(self) -> None:
        """Remove the unfinished files of a killed run; call it only while no other run writes to this folder."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint in one step, so that a kill leaves it whole or an unfinished folder."""
        if not _is_removable(path):
            return
        gone = self.folder / f"{TEMPORARY}{os.urandom(8).hex()}.tmp"
        try:
            path.rename(gone)
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def step_of(path: Path) -> int:
    """The number of updates in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def _is_name(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and name == f"step-{int(found[1]):08d}"


def _is_removable(path: Path) -> bool:
    """Whether a folder is a checkpoint and nothing else: no link, and no file in it that a state does not have."""
    try:
        return describe_obstacle(path) == "a folder" and {file.name for file in path.iterdir()} <= FILES
    except OSError:
        return False


def _read_metric(path: Path) -> float:
    try:
        metric = read_about(path)["metric"]
    except CheckpointError:
        return -math.inf
    return -math.inf if metric is None or math.isnan(metric) else float(metric)
