"""A CSV file that grows row by row."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from layered_lr.files import describe_kind, open_plain
from layered_lr.outputs import open_whole

_CHUNK = 1 << 20


class RowFile:
    """A CSV file that grows row by row. Its methods raise ``OSError``.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether rows can be added."""
        return self._file is not None

    def begin(self, rows: Iterable[Sequence[Any]]) -> bool:
        """Open the file with these rows, and no others.

        Returns:
            Whether a file was there that began with these rows.
        """
        self.close()
        with open_whole(self.path) as new:
            text = io.TextIOWrapper(new, encoding="utf-8", newline="", write_through=True)
            csv.writer(text).writerows(rows)
            text.flush()
            text.detach()
            new.flush()
            new.seek(0)
            is_same = _begins_with(self.path, new)
        self._file = open_to_append(self.path)
        return is_same

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append all of these rows, or none."""
        if self._file is None:
            raise OSError(errno.EBADF, "it could not be begun")
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        append(self._file, text.getvalue().encode())

    def close(self) -> None:
        """Add no more rows."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _begins_with(path: Path, rows: IO[bytes]) -> bool:
    """Whether a file begins with all of these rows."""
    try:
        with open_plain(path) as old:
            while chunk := rows.read(_CHUNK):
                if old.read(len(chunk)) != chunk:
                    return False
        return True
    except OSError:
        return False


def open_to_append(path: Path) -> IO[bytes]:
    """Open a plain file, made where it is missing, to write to its end at once.

    Raises:
        OSError: It cannot be opened, or is a link, a FIFO or a device, which are never written to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which is never written over") from None
        raise
    if kind := describe_kind(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EEXIST, f"it is {kind}, which is never written over")
    return os.fdopen(handle, "a+b", buffering=0)


def append(file: IO[bytes], data: bytes) -> None:
    """Write to the end of an unbuffered file: all of it, or on an error nothing.

    Raises:
        OSError: It cannot be written.
    """
    size = file.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(size)
        raise
