"""What all processes but the first have instead of the run's folder and log: they read, and write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.training.run_folder import CHECKPOINTS, PLAN, read_table
from layered_lr.training.run_mark import Mark, read_mark


class FollowedFolder:
    """The folder of a run into which the first process writes.

    Args:
        path: The folder's.
    """

    def __init__(self, path: Path) -> None:
        self.said = path
        self.path = path = path.absolute()
        found = read_mark(path)
        self.mark_is_whole = found is not None
        self.mark = found or Mark(str(self.described().get("run")))

    def described(self) -> dict[str, Any]:
        """What ``plan.json`` says; empty where it is missing or no such table."""
        return read_table(self.path / PLAN)

    def checkpoints(self, keep: int, keep_best: bool) -> CheckpointFolder:
        """The run's checkpoints, to be read."""
        return CheckpointFolder(self.path / CHECKPOINTS, keep, keep_best)

    def event(self, what: str, /, **values: Any) -> None:
        """The first process writes it."""

    def close(self) -> None:
        """Nothing is open."""

    def withdraw(self) -> None:
        """The first process removes what it has made."""


class FollowedLog:
    """The log of a run that the first process writes. It has the verbs of a ``RunLog`` that the loop calls.

    Args:
        path: The run's folder.
        way_on: The command that goes on with the run.
        checkpoint_step: After how many updates the newest checkpoint was written.
    """

    def __init__(self, path: Path, way_on: str, checkpoint_step: int) -> None:
        self.path, self.way_on, self.checkpoint_step = path, way_on, checkpoint_step

    def is_due(self, step: int, in_epoch: int) -> bool:
        """The first process decides it."""
        return False

    def event(self, what: str, /, **values: Any) -> None:
        """The first process writes it."""

    def add(self, history: Any) -> None:
        """The first process writes it."""

    def rate(self, history: Any, step: int, epoch_began: int) -> float | None:
        """The first process rates its checkpoints."""
        return None

    def checkpoint(self, state: Any, metric: Any, staying: Any = (), **about: Any) -> Path | None:
        """The first process writes it; it says where."""
        self.checkpoint_step = state.step
        return None

    def go_back(self, step: int, history: Any) -> None:
        """The first process writes it."""

    def remove_after(self, step: int) -> None:
        """The first process removes them."""

    def report(self, text: str) -> None:
        """The first process writes it."""
