"""What a run that never began has made in its folder, and the folder itself: removed again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path


class Leftovers:
    """Remembers what a run makes anew, so that it can be removed where the run never begins.

    Args:
        folder: The run's folder, before it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._new_folders = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
        self._names: Collection[str] = ()

    def expect(self, names: Collection[str]) -> None:
        """Say what the run makes in its folder.

        Args:
            names: Of files and folders that are not there now, or are the run's in any case.
        """
        self._names = names

    def remove(self) -> None:
        """Remove it, and then the new folders around it that are empty.

        What cannot be removed stays: the error that ended the run says more than one about its leftovers.
        """
        names, self._names = self._names, ()  # once: later ones may be somebody else's
        for path in (self._folder / name for name in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):  # somebody else has put something there
            for folder in self._new_folders:
                folder.rmdir()
