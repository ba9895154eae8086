"""Reads ``logged.csv``: the numbers that callbacks and metrics have left in a run's folder, by name."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.files import read_plain

Logged: TypeAlias = "dict[str, tuple[NDArray[np.int64], Float64]]"

_MOST_NAMES = 1_000


def read_logged(file: Path) -> Logged:
    """Read the numbers by name, each with the updates that were made when it was logged; the last of an update counts.

    What cannot be read is left out: it is shown beside what decides nothing.

    Args:
        file: ``logged.csv``; it need not be there.
    """
    try:
        text = read_plain(file).decode("utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, dict[int, float]] = {}
    reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    try:
        for row in reader:
            if len(row) == 3 and row[0].isdecimal() and (row[1] in found or len(found) < _MOST_NAMES):
                number = _number(row[2])
                if number is not None and len(row[0]) < 16:
                    found.setdefault(row[1], {})[int(row[0])] = number
    except csv.Error:
        pass
    return {name: (np.array(sorted(rows)), np.array([rows[at] for at in sorted(rows)])) for name, rows in found.items()}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
