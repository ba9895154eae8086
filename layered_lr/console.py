"""Lines on stderr for the user, and the width of text on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from layered_lr.printed import harmless

_SILENT: list[bool] = []
"""Has an entry as long as this process is to say nothing, because another one says the same."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Let ``say`` print nothing inside of a ``with`` block: of several processes the first one speaks."""
    _SILENT.append(True)
    try:
        yield
    finally:
        _SILENT.pop()


def say(message: str, always: bool = False) -> None:
    """Print one line on stderr, harmless whatever is in it, without breaking a progress bar.

    Args:
        message: Without an end of line.
        always: Also in a process that is silenced, for what the one that speaks cannot say.
    """
    if _SILENT and not always:
        return
    from tqdm import tqdm

    tqdm.write(harmless(f"layered_lr: {message}"), file=sys.stderr)


def stdout_width() -> int | None:
    """How many characters a line on stdout may have.

    Returns:
        The environment variable ``COLUMNS`` where it is set; else the width of the terminal that stdout is; else
        None: stdout is a file, a pipe or a notebook.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (AttributeError, OSError, ValueError):  # no stdout at all, no terminal, or a closed file
        return None
