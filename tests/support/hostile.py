"""Files and folders as others may leave them: damaged, exchanged, endless."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]


def flip(file: Path, draw: random.Random) -> None:
    """One bit."""
    content = bytearray(file.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def truncate(file: Path, draw: random.Random) -> None:
    """Its end is missing."""
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content) or 1)])


def scramble(file: Path, draw: random.Random) -> None:
    """Something else is in it."""
    file.write_bytes(draw.randbytes(draw.randrange(1, 400)))


def extend(file: Path, draw: random.Random) -> None:
    """It is far larger than all that there is on the disk."""
    os.truncate(file, 1 << 42)


def empty(file: Path, draw: random.Random) -> None:
    """Nothing is in it."""
    file.write_bytes(b"")


def remove(file: Path, draw: random.Random) -> None:
    """It is gone."""
    clear(file)


def folder(file: Path, draw: random.Random) -> None:
    """A folder has its name."""
    clear(file)
    file.mkdir()


def fifo(file: Path, draw: random.Random) -> None:
    """A FIFO that nobody writes to has its name."""
    clear(file)
    os.mkfifo(file)


def device(file: Path, draw: random.Random) -> None:
    """A link to a device that never ends has its name."""
    clear(file)
    file.symlink_to("/dev/zero")


def link(file: Path, draw: random.Random) -> None:
    """A link to a file of the user has its name."""
    clear(file)
    file.symlink_to(victim(file))


def clear(file: Path) -> None:
    """Remove a file or a folder."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink()


def victim(file: Path) -> Path:
    """A file of the user, which nothing may change."""
    return next(folder / "victim.txt" for folder in file.parents if (folder / "victim.txt").exists())


OF_FILES: tuple[Damage, ...] = (flip, truncate, scramble, extend, empty, remove, folder, fifo, device, link)
OF_FOLDERS: tuple[Damage, ...] = (remove, fifo, device, link)
