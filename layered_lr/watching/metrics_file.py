"""Reads ``metrics.csv``, also one that a kill has cut off or that somebody has damaged."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import CheckpointError
from layered_lr.files import open_plain, read_plain

_RATE = "rate: "
_LARGE, _TAIL = 1 << 23, 1 << 18  # bytes
_MOST_BYTES = 1 << 31


class Metrics(NamedTuple):
    """The numbers of a run's updates, one after the other.

    Args:
        updates: How many are written down.
        losses: Shape (updates,); of the last ones only, where no more was asked for.
        rates: Each group's, as it was applied, shape (updates, groups); likewise.
        damage: What is wrong with the file from some line on, in words; empty where nothing is.
    """

    updates: int
    losses: Float64
    rates: Float64
    damage: str = ""


def read_metrics(file: Path, groups: Sequence[str], *, only_last: bool = False) -> Metrics:
    """Read the numbers of every update; what comes after the first damaged line is left out.

    Args:
        file: ``metrics.csv``.
        groups: The names of the plan's groups, in its order.
        only_last: Of a large file, read the last lines only.

    Raises:
        CheckpointError: The file cannot be read.
    """
    first = 0
    try:
        content, is_whole = _read(file, only_last)
        text = content.decode("utf-8", errors="replace")
    except FileNotFoundError:
        return _nothing(groups)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from None
    whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last line off
    found = _rows(csv.reader(io.StringIO(whole, newline=""), strict=True))
    wanted = ["loss", *(_RATE + name for name in groups)]
    if not whole:
        return _nothing(groups)
    header = next(found) or []
    if header[:1] != ["step"] or not set(wanted) <= set(header):
        return _nothing(groups, f"{file.name}: its columns are not those of the plan's groups")
    places = [header.index(name) for name in wanted]
    rows: list[list[float]] = []
    damage = ""
    for number, row in enumerate(found):
        try:
            if row is None or len(row) != len(header):
                raise ValueError
            if number == 0 and not is_whole:
                first = int(row[0])
            if int(row[0]) != first + number:
                raise ValueError
            rows.append([float(row[place]) for place in places])
        except ValueError:
            damage = f"{file.name}: is damaged from line {first + number + 2} on"
            break
    table = np.array(rows, dtype=np.float64).reshape(-1, len(wanted))
    return Metrics(first + len(rows), table[:, 0], table[:, 1:], damage)


def _read(file: Path, only_last: bool) -> tuple[bytes, bool]:
    """The file; or of a large one its header and its last whole lines. And whether it is the whole file."""
    with open_plain(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not only_last or size <= _LARGE:
            return read_plain(file, _MOST_BYTES), True
        header = opened.readline(_TAIL)
        opened.seek(max(size - _TAIL, len(header)))
        tail = opened.read(_TAIL)
        return header + tail[tail.find(b"\n") + 1 :], False


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """The rows, and None for one that is no CSV."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None


def _nothing(groups: Sequence[str], damage: str = "") -> Metrics:
    return Metrics(0, np.empty(0), np.empty((0, len(groups))), damage)
