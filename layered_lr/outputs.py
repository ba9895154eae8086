"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from layered_lr.errors import LayeredLRError, SpecError


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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
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
        with whole_file(path) as file:
            file.writelines(chunks)
    except OSError as error:
        raise LayeredLRError(f"{path}: cannot be written: {error.strerror or error}.") from None
