"""The places that a run writes to: none of them may be another one, which would be found out after the training."""

from __future__ import annotations

import os
from pathlib import Path

from layered_lr.errors import SpecError
from layered_lr.training.loggers.logger import Logger
from layered_lr.training.options import RunOptions
from layered_lr.training.run_folder import CHECKPOINTS, NAMES


def check_places(options: RunOptions) -> None:
    """Refuse a result or a log in the place of another one, of the run's folder, or of a file that the run keeps there.

    Args:
        options: Of the run, or of the run that goes on.

    Raises:
        SpecError: There is one.
    """
    files = [("save", options.save)] if options.save is not None else []
    for listener in options.listeners:
        if isinstance(listener, Logger) and listener.file is not None:
            files.append((f"the log {type(listener).__name__}", listener.file))
    folder = None if options.checkpoints is None else options.checkpoints.folder
    taken: dict[Path, str] = {}
    for what, path in files:
        real = _real(path)
        if real in taken:
            raise SpecError(f"{what}: {str(path)!r} is the file of {taken[real]} too. Give each a file of its own.")
        taken[real] = what
        if folder is None:
            continue
        run = _real(Path(folder))
        if real == run or real in run.parents:
            raise SpecError(f"{what}: {str(path)!r} is a file, and the run's folder is {str(folder)!r}. Give another.")
        if (real.parent == run and real.name in NAMES) or run / CHECKPOINTS in real.parents:
            raise SpecError(
                f"{what}: {str(path)!r} is one of the files that the run keeps in its folder. Give a file of another "
                "name, or outside of the folder."
            )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
