"""Files: reading files that may be damaged, and writing files completely or not at all."""

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
from layered_lr.printed import shown


class UnreadableError(Exception):
    """A file is not an archive of arrays; the message gives the reason in one line."""


def read_archive(path: Path) -> dict[str, Array]:
    """Read every array of an ``.npz`` file, without unpickling anything.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: The file cannot be read, is damaged, or is of another kind.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UnreadableError("it holds a single array; save it with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except (FileNotFoundError, UnreadableError):
        raise
    except Exception as error:  # for a damaged file, NumPy, zipfile and zlib raise many kinds of errors
        raise UnreadableError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 160 characters, or its type if it has no message."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if 0 < len(words) <= 160 else f"{words[:160]}…" if words else type(error).__name__


def check_output(what: str, path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """Check that a file can be written to a path, before anything is computed.

    Args:
        what: The name of the option or argument, for messages.
        path: The path of the file.
        suffixes: The allowed endings of the name, in lower case; empty allows all.

    Returns:
        The path.

    Raises:
        SpecError: It has another ending, is a folder, or its folder is missing or cannot be written to.
    """
    if not isinstance(path, str | Path):
        raise SpecError(f"{what}={shown(path)}: must be a path.")
    file = Path(path)
    if suffixes and file.suffix.lower() not in suffixes:
        raise SpecError(f"{what}={str(path)!r}: the name must end in {' or '.join(suffixes)}.")
    folder = file.parent
    if os.path.isdir(file) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise SpecError(f"{what}={str(path)!r}: must be a file in a folder that exists and can be written to.")
    return file


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes the file at ``path`` at the end, or is removed if anything fails.

    Raises:
        OSError: The file cannot be written.
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
    """Write a file completely or not at all.

    Raises:
        LayeredLRError: The file cannot be written.
    """
    try:
        with open_whole(path) as file:
            file.writelines(chunks)
    except OSError as error:
        raise LayeredLRError(f"{path}: cannot be written: {error.strerror or error}.") from None


@contextmanager
def explain_read_errors(path: Path, expected: str) -> Iterator[None]:
    """Turn every error inside into a ``DataError`` of one line: ``<path> is not <expected>, or is damaged (<why>)``.

    It catches every Exception: for a damaged file, zipfile, zlib, tokenize and NumPy raise a dozen kinds of errors, and
    none of them documents all.
    """
    try:
        yield
    except LayeredLRError:
        raise
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({describe_error(error)}): check the path and its permissions."
        ) from None
    except Exception as error:
        raise DataError(
            f"{path} is not {expected}, or is damaged ({describe_error(error)}): make or copy it again."
        ) from None


def describe_error(error: BaseException) -> str:
    """Return an error's type and message in one line of at most 200 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:199]}…"
