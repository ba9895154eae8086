"""Files that others wrote, or that broke: reading them without hanging, without running anything, and to the end."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from layered_lr.arrays import Array, find_bfloat16
from layered_lr.errors import DataError, LayeredLRError, SpecError
from layered_lr.printed import shown

_MOST_TAIL_BYTES = 22 + (1 << 16)  # of a zip file: its last record, and a comment
MOST_TEXT_BYTES = 1 << 28  # of a text that is read as a whole: more than any that this library writes


class UnreadableError(Exception):
    """A file is not an archive of arrays; the message gives the reason in one line."""


def as_path(what: str, value: Any) -> Path:
    """A path that was given, with ``~`` as the home folder: no shell has seen what stands in Python or in a recipe.

    Args:
        what: The name of the option or argument, for messages.
        value: What was given.

    Raises:
        SpecError: It is no path, or one that no file can have.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise SpecError(f"{what}={shown(value)}: must be a path.")
    if "\0" in text:
        raise SpecError(f"{what}={text!r}: a path cannot hold a NUL character; give another one.")
    path = Path(os.path.expanduser(text))
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SpecError(f"{what}={text[:40]!r}…: a name this long cannot be; give a shorter one.") from None
    except UnicodeEncodeError:
        raise SpecError(f"{what}={text!r}: this file system cannot have such a name; give another one.") from None
    return path


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def describe_kind(mode: int) -> str:
    """What a file is that is no plain one, in words; empty for a plain file."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "")


def open_plain(path: Path) -> IO[bytes]:
    """Open a plain file to read it; a symbolic link to one is good too.

    Raises:
        OSError: There is no such file, or it is a folder, a FIFO or a device: to read those may never end.
    """
    _check_kind(path.stat().st_mode)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_kind(os.fstat(handle).st_mode)  # it may have been exchanged in between
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_kind(mode: int) -> None:
    if kind := describe_kind(mode):
        raise OSError(errno.EINVAL, f"it is {kind}, and must be a plain file")


def begins_with(path: Path, first: bytes) -> bool:
    """Whether a file can be read, and begins with these bytes: so files of this library are told from others."""
    return read_beginning(path, len(first)) == first


def read_beginning(path: Path, most_bytes: int) -> bytes:
    """What a file begins with; nothing where it cannot be read."""
    try:
        with open_plain(path) as file:
            return file.read(most_bytes)
    except OSError:
        return b""


def read_plain(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """Read a plain file as a whole.

    Args:
        path: The file.
        most_bytes: A larger file is refused instead of filling the memory.

    Raises:
        OSError: It cannot be read, is no plain file, or is too large.
    """
    with open_plain(path) as file:
        content = file.read(most_bytes + 1) if os.fstat(file.fileno()).st_size <= most_bytes else None
    if content is None or len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes")
    return content


def read_archive(path: Path) -> dict[str, Array]:
    """Read every array of an ``.npz`` file, without unpickling anything.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: The file cannot be read, is damaged, or is of another kind.
    """
    try:
        with open_plain(path) as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UnreadableError("it holds a single array; save it with numpy.savez")
            check_complete(file, archive.zip)
            arrays = {name: _as_saved(archive[name]) for name in archive.files}
        if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise UnreadableError(f"{odd[0]!r} in it is no array")
        return arrays
    except (FileNotFoundError, UnreadableError):
        raise
    except Exception as error:  # for a damaged file, NumPy, zipfile and zlib raise many kinds of errors
        raise UnreadableError(one_line(error)) from None


def _as_saved(array: Array) -> Array:
    """Return an array in the dtype that it was saved in: ``.npy`` has no name for bfloat16, only for its two bytes."""
    is_bfloat16 = isinstance(array, np.ndarray) and array.dtype == np.dtype("V2")
    return array.view(find_bfloat16()) if is_bfloat16 else array


def check_complete(file: IO[bytes], archive: Any) -> None:
    """Refuse a zip file whose list of contents is damaged, so that some of them are silently missing.

    Args:
        file: The open file.
        archive: The ``zipfile.ZipFile`` of it.

    Raises:
        ValueError: It says that it has another number of members than are found.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _MOST_TAIL_BYTES, 0))
    tail = file.read(_MOST_TAIL_BYTES)
    at = tail.rfind(b"PK\5\6")
    said, found = int.from_bytes(tail[at + 10 : at + 12], "little"), len(archive.infolist())
    if at < 0 or said not in (found, 0xFFFF):  # 0xFFFF: there are more than this number can say
        raise ValueError(f"it says that it has {said} members, and {found} are found")


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 160 characters, or its type if it has no message."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if 0 < len(words) <= 160 else f"{words[:160]}…" if words else type(error).__name__


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


_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # as OneFlow 0.9 writes them into what it raises


def without_colours(text: str) -> str:
    r"""Take a terminal's colours out of a text.

    Example:
        >>> without_colours("\x1b[1;31mError\x1b[0m: odd")
        'Error: odd'
    """
    return _COLOURS.sub("", text)


def describe_error(error: BaseException) -> str:
    """Return an error's type and message in one line of at most 200 characters, without colours, and no full stop last.

    Example:
        >>> describe_error(ValueError("too many."))
        'ValueError: too many'
    """
    text = " ".join(without_colours(f"{type(error).__name__}: {error}").split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:199]}…"
