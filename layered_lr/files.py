"""Files: read whatever was done to them, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from layered_lr.arrays import Array
from layered_lr.errors import DataError, LayeredLRError, SpecError


class UnreadableError(Exception):
    """A file that is no archive of arrays, with the reason in one line."""


def read_archive(path: Path) -> dict[str, Array]:
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


def check_output(what: str, path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """The path, if a file can be written there: found out before anything is computed.

    Args:
        what: The option or argument that messages speak of.
        path: Where to.
        suffixes: What the name may end in, in lower case; empty for anything.

    Raises:
        SpecError: Another suffix, a folder, or a folder that is missing or cannot be written to.
    """
    if not isinstance(path, str | Path):
        raise SpecError(f"{what}={path!r}: must be a path.")
    file = Path(path)
    if suffixes and file.suffix.lower() not in suffixes:
        raise SpecError(f"{what}={str(path)!r}: the name must end in {' or '.join(suffixes)}.")
    folder = file.parent
    if os.path.isdir(file) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise SpecError(f"{what}={str(path)!r}: must be a file in a folder that is there and can be written to.")
    return file


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file next to its place, which is moved there when all went well, and is gone when not.

    Raises:
        OSError: It cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".layered_lr-", delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole or not at all.

    Raises:
        LayeredLRError: It cannot be written.
    """
    try:
        with open_whole(path) as file:
            file.writelines(chunks)
    except OSError as error:
        raise LayeredLRError(f"{path}: cannot be written: {error.strerror or error}.") from None


@contextmanager
def explain_read_errors(path: Path, expected: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line: ``DataError: <path> is not <expected>, or damaged (<why>)``.

    Every Exception is meant: of a damaged file zipfile, zlib, tokenize and NumPy raise a dozen kinds, none of
    them documented as complete.
    """
    try:
        yield
    except LayeredLRError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe_error(error)}).") from None
    except Exception as error:
        raise DataError(
            f"{path} is not {expected}, or is damaged ({describe_error(error)}): make or copy it again."
        ) from None


def describe_error(error: BaseException) -> str:
    """Kind and message of an error in one line of at most 200 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:199]}…"
