"""Arrays of an ``.npz`` file, whatever was done to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class UnreadableError(Exception):
    """A file that is no archive of arrays, with the reason in one line."""


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz``, none of them pickled.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: The file cannot be read, is damaged, or is something else.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UnreadableError("it holds a single array; save it with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except (FileNotFoundError, UnreadableError):
        raise
    except Exception as error:  # of a damaged file NumPy, zipfile and zlib raise whatever they come upon
        raise UnreadableError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """An error's own words, cut to a line; its type where it has none."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if 0 < len(words) <= 160 else f"{words[:160]}…" if words else type(error).__name__
