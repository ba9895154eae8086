"""The lock on a run's folder: one process at a time writes there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import time
import weakref
from pathlib import Path

from layered_lr.errors import CheckpointError
from layered_lr.files import describe_kind

_LOOK_SECONDS = 0.05
_OWNER = re.compile(r"process \d+ on [\w.-]+")
_OPEN: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """A lock on a file, which the operating system holds: it ends with its process, however the process ends.

    A process that this one forks does not hold it.

    Args:
        file: The file to lock; made where it is missing.

    Raises:
        CheckpointError: Another process holds it, it is no plain file, or the file system has no locks.
        OSError: The file cannot be made or opened.
    """

    def __init__(self, file: Path) -> None:
        self._handle: int | None = None
        while self._handle is None:
            self._open(file)
            if not self._is_of(file):  # its owner was refused, and has removed it before it let go
                self.close()
        _OPEN.add(self)

    def _open(self, file: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._handle = os.open(file, flags, 0o666)
        try:
            if kind := describe_kind(os.fstat(self._handle).st_mode):
                raise CheckpointError(f"{file}: is {kind}, and must be a plain file.")
            self._take(file.parent)
        except BaseException:
            self.close()
            raise

    def _is_of(self, file: Path) -> bool:
        """Whether the file that is locked is the one that has this name."""
        assert self._handle is not None
        try:
            return os.path.samestat(os.fstat(self._handle), os.lstat(file))
        except FileNotFoundError:
            return False

    def _take(self, folder: Path) -> None:
        assert self._handle is not None
        try:
            _lock(self._handle)
        except BlockingIOError:
            said = os.pread(self._handle, 200, 0).decode(errors="replace")
            owner = said if _OWNER.fullmatch(said) else "another process"
            raise CheckpointError(
                f"{folder}: {owner} is writing there. Wait for it, stop it, or choose another folder."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{folder}: this file system cannot lock files ({error.strerror}), so that nothing would keep a second "
                "run from writing there. Choose a folder on another file system."
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)

    def close(self) -> None:
        """Let others write there."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _lock(handle: int) -> None:
    """Take the lock; who only looks whether a run goes on (``layered-lr runs``) holds it for a moment.

    Raises:
        BlockingIOError: Somebody else holds it.
        OSError: The file system has no locks.
    """
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    time.sleep(_LOOK_SECONDS)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go() -> None:
    """In a forked process: the lock stays with the process that took it, and ends with it."""
    for lock in list(_OPEN):
        lock.close()


os.register_at_fork(after_in_child=_let_go)
