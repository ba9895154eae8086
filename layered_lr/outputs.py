"""Writes files: completely or not at all, with the permissions of the umask, and only over plain files."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import as_path, begins_with, describe_kind, read_beginning
from layered_lr.reports.figures import MARKS
from layered_lr.reports.page import BEGINNING

TEMPORARY = ".layered_lr-"  # names of unfinished files and folders begin with this
_DRAWING_BYTES = 2048  # in which the mark of a drawing stands
_UNFINISHED = re.compile(r"\.layered_lr-[0-9a-f]{16}\.tmp")


def describe_obstacle(path: Path) -> str:
    """What stands in the way of a file, in words: anything there that is no plain file. Empty if nothing does."""
    try:
        return describe_kind(os.lstat(path).st_mode)
    except OSError:  # nothing is there; or it cannot be seen, which writing will say
        return ""


def check_output(
    what: str, path: str | Path, suffixes: Sequence[str] = (), is_ours: Callable[[Path], bool] | None = None
) -> Path:
    """Check that a file can be written to a path, before anything is computed.

    Args:
        what: The name of the option or argument, for messages.
        path: The path of the file; ``~`` is the home folder.
        suffixes: The allowed endings of the name, in lower case; empty allows all.
        is_ours: Whether a file that is there already may be replaced; None replaces every plain file.

    Returns:
        The path.

    Raises:
        SpecError: It has another ending, is a folder, a link, a FIFO or a device, is a file that may not be replaced,
            or its folder is missing or cannot be written to.
    """
    file = as_path(what, path)
    if suffixes and file.suffix.lower() not in suffixes:
        raise SpecError(f"{what}={str(path)!r}: the name must end in {' or '.join(suffixes)}.")
    folder, kind = file.parent, describe_obstacle(file)
    if kind == "a folder" or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise SpecError(f"{what}={str(path)!r}: must be a file in a folder that exists and can be written to.")
    if kind:
        raise SpecError(f"{what}={str(path)!r}: is {kind}, which is never written over. Give the name of a file.")
    if is_ours is not None and os.path.isfile(file) and file.stat().st_size and not is_ours(file):
        raise SpecError(
            f"{what}={str(path)!r}: there is a file that this library has not written. Remove it, or give another name."
        )
    return file


def check_page(what: str, path: str | Path, suffixes: Sequence[str] = (".html",)) -> Path:
    """Check that an HTML page can be written to a path; one of this library is replaced, and nothing else.

    Args:
        what: The name of the option or argument, for messages.
        path: The path of the file.
        suffixes: As for ``check_output``.

    Raises:
        SpecError: It cannot.
    """
    return check_output(what, path, suffixes, is_ours=lambda file: begins_with(file, BEGINNING.encode()))


def check_drawing(what: str, path: str | Path) -> Path:
    """Check that a drawing can be written to a path; one of this library is replaced, and nothing else.

    Args:
        what: The name of the option or argument, for messages.
        path: The path of the file: a .png, .svg or .html.

    Raises:
        SpecError: It cannot.
    """

    def is_ours(file: Path) -> bool:
        beginning = read_beginning(file, _DRAWING_BYTES)
        return beginning.startswith(BEGINNING.encode()) or any(mark in beginning for mark in MARKS)

    return check_output(what, path, (".png", ".svg", ".html"), is_ours)


def make_temporary(folder: Path, is_folder: bool = False) -> tuple[Path, int]:
    """Make a file or a folder under a name that says that it is unfinished, and lock it as long as it is open.

    Whoever writes there next removes those that nobody holds any more (``clear_unfinished``).

    Args:
        folder: Where.
        is_folder: Make a folder.

    Returns:
        Its path, and a file descriptor of it, which the caller closes.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        path = folder / f"{TEMPORARY}{os.urandom(8).hex()}.tmp"
        if is_folder:
            path.mkdir()
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # a file system without locks: what a kill leaves there stays
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return path, handle
        os.close(handle)  # another process has cleared it away before it was locked


def clear_unfinished(folder: Path) -> None:
    """Remove what processes of this library that were killed have left unfinished in a folder, and nothing else."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            is_folder = entry.is_dir(follow_symlinks=False)
            if _UNFINISHED.fullmatch(entry.name) and (is_folder or entry.is_file(follow_symlinks=False)):
                _clear(Path(entry.path), is_folder)


def _clear(path: Path, is_folder: bool) -> None:
    with suppress(OSError):  # its writer holds it, or it is another user's
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_folder:
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes the file at ``path`` at the end, or is removed if anything fails.

    Raises:
        OSError: The file cannot be written, or something is there that is no plain file.
    """
    _refuse_obstacle(path)
    clear_unfinished(path.parent)
    temporary, handle = make_temporary(path.parent)
    with os.fdopen(handle, "w+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _refuse_obstacle(path)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _refuse_obstacle(path: Path) -> None:
    if kind := describe_obstacle(path):
        raise OSError(errno.EEXIST, f"there is {kind}, which is never written over")


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
