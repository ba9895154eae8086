"""Downloads a file of weights into torch's cache: it goes on where it broke off, one process at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from layered_lr.console import say
from layered_lr.errors import DataError
from layered_lr.files import describe_error

_SECONDS = 20  # without an answer
_BLOCK_BYTES = 1 << 20
_DIGEST = re.compile(r"-([a-f0-9]{8,})\.")  # as torch.hub writes and reads it


def fetch(url: str, file: Path, progress: bool) -> Path:
    """Return a file whose name has the digest of its content, downloaded where it is missing or damaged.

    A download that was broken off goes on where it stopped. Where another process downloads the file, this one waits.

    Args:
        url: Where it is.
        file: Where it is to be.
        progress: Whether to show a bar.

    Raises:
        DataError: It cannot be downloaded or written, or is not what its name says.
    """
    if is_whole(file):
        return file
    part = file.with_name(file.name + ".partial")
    with _alone_with(part, file) as opened:
        if file.is_file() and not _describe_damage(file):  # another process has brought it meanwhile
            return file
        damaged = _describe_damage(file) if file.is_file() else ""
        try:
            _download(url, opened, file.name, progress)
        except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
            is_there = f"The file that is there is damaged: {damaged}. " if damaged else ""
            raise DataError(
                f"pretrained: {url} cannot be downloaded ({describe_error(error)}). {is_there}Put the file at {file}, "
                "or give the path of one as pretrained."
            ) from None
        if wrong := _describe_damage(part, file.name):
            part.unlink()
            raise DataError(f"pretrained: what {url} gave is not that file: {wrong}. Try again, or put it at {file}.")
        part.replace(file)
    return file


def is_whole(file: Path) -> bool:
    """Whether a file of weights is there and is what its name says; a damaged one is said.

    Raises:
        DataError: A folder has its name.
    """
    if os.path.lexists(file) and not file.is_file():
        raise DataError(f"pretrained: {file} is no plain file, but weights belong there. Move it away.")
    if not file.is_file():
        return False
    if damaged := _describe_damage(file):
        say(f"{file}: {damaged}; it is downloaded again.")
    return not damaged


@contextmanager
def _alone_with(part: Path, file: Path) -> Iterator[IO[bytes]]:
    """Open the beginning of a file, which no other process writes to meanwhile.

    Raises:
        DataError: It cannot be written to.
    """
    opened: IO[bytes] | None = None
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        while opened is None:
            opened = part.open("ab")
            _lock(opened, file)
            if not _is_at(opened, part):  # who held it has finished it, or has thrown it away
                opened.close()
                opened = None
                if file.is_file():
                    break
    except OSError as error:
        raise DataError(
            f"pretrained: {part.parent} cannot be written to ({describe_error(error)}). It is torch's cache: set "
            "TORCH_HOME to another folder, or give the path of a file as pretrained."
        ) from None
    with opened if opened is not None else file.open("rb") as held:
        yield held


def _lock(opened: IO[bytes], file: Path) -> None:
    """Wait until no other process holds the file; a file system without locks has none to wait for."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"pretrained: another process downloads {file.name}; this one waits for it.")
        fcntl.flock(opened, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
            raise


def _is_at(opened: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one that has a name."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _describe_damage(file: Path, name: str = "") -> str:
    """Say how a file's content is not what its name says; empty where it is, or where the name says nothing."""
    wanted = _DIGEST.search(name or file.name)
    if wanted is None:
        return "" if file.stat().st_size else "it is empty"
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            found.update(block)
    digest = found.hexdigest()
    if digest.startswith(wanted[1]):
        return ""
    return f"its digest begins {digest[: len(wanted[1])]}, and its name says {wanted[1]}"


def _download(url: str, opened: IO[bytes], name: str, progress: bool) -> None:
    """Download to an open file, from where it ends."""
    have = opened.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have
            return
        raise
    with answer:
        if have and answer.status != 206:
            opened.truncate(have := 0)
        size = int(answer.headers.get("Content-Length") or 0) + have
        with tqdm(
            total=size or None,
            initial=have,
            desc=name,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,
        ) as bar:
            for block in _blocks(answer):
                opened.write(block)
                bar.update(len(block))
    opened.flush()
    got = opened.seek(0, os.SEEK_END)
    if size and got < size:
        raise OSError(f"the connection ended after {got} of {size} bytes; try again to go on")


def _blocks(answer: Any) -> Iterator[bytes]:
    """Yield what a server sends, also what comes before the connection ends too early."""
    try:
        while block := answer.read(_BLOCK_BYTES):
            yield block
    except http.client.IncompleteRead as error:  # of an answer in chunks
        yield error.partial
        raise OSError("the connection ended before the end of the file; try again to go on") from None
