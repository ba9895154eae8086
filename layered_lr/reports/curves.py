"""A run's rates in few points, with no spike lost: for pictures, and for a line of block characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.printed import shown

Scale: TypeAlias = Literal["auto", "log", "linear"]
SCALES = ("auto", "log", "linear")
CELLS = 16  # of a sparkline

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_PRESSED = 100.0  # a rate that many times below the highest lies on the bottom of a linear axis
_CROWDED = 10.0  # most lines that many times below the highest cannot be told apart on a linear axis
_BLOCK_STEPS = 65_536  # steps whose rates are held at once
_MOST_STEPS = 1 << 20  # of which a sparkline looks at each; of a longer run, at that many
_SPIKE = 3.0  # a cell's extreme stands out when it is this much farther from the median than the other one


class RateTable(Protocol):
    """What has a rate for each group at each step, such as a plan."""

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run, if known."""

    @property
    def groups(self) -> Sequence[Any]:
        """One for each column of rates."""

    def table(self, start: int = 0, stop: int | None = None) -> Float64:
        """Every rate of the steps ``start`` to ``stop - 1``, shape (steps, groups)."""

    def at(self, steps: Any) -> Float64:
        """Every rate of these steps, shape (steps, groups)."""


class Outline(NamedTuple):
    """Points of one group's rate: the first, lowest, highest and last of each part of the run.

    Args:
        steps: (n,) ascending.
        rates: (n,) the group's rates at these steps.
    """

    steps: NDArray[np.int64]
    rates: Float64


def outlines(plan: RateTable, parts: int) -> list[Outline]:
    """Each group's rates over the whole run, cut into ``parts`` of equal length.

    Drawn as a line of ``parts`` pixels, the points look as every step would (M4, https://doi.org/10.14778/2732951.2732953).

    Args:
        plan: Of known length.
        parts: Into how many parts the run is cut; a run of at most ``4 * parts`` steps keeps each of them.

    Raises:
        SpecError: As ``plan.table``.
    """
    total = plan.total_steps
    if total is None or total <= 4 * parts:
        table = plan.table()
        return [Outline(np.arange(len(table)), rates) for rates in table.T]
    width = -(-total // parts)
    stride = width * max(1, _BLOCK_STEPS // width)
    kept = [_extremes(plan, start, min(start + stride, total), width) for start in range(0, total, stride)]
    return [
        Outline(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True))) for pieces in zip(*kept, strict=True)
    ]


def _extremes(plan: RateTable, start: int, stop: int, width: int) -> list[Outline]:
    table = plan.table(start, stop).T  # (groups, steps)
    whole = table.shape[1] // width * width
    firsts = np.arange(0, table.shape[1], width)
    lasts = np.minimum(firsts + width, table.shape[1]) - 1
    found = []
    for rates in table:
        parts = rates[:whole].reshape(-1, width)
        low, high = firsts.copy(), firsts.copy()
        low[: len(parts)] += parts.argmin(axis=1)
        high[: len(parts)] += parts.argmax(axis=1)
        if whole < len(rates):
            low[-1] += rates[whole:].argmin()
            high[-1] += rates[whole:].argmax()
        places = np.unique(np.concatenate([firsts, low, high, lasts]))
        found.append(Outline(places + start, rates[places]))
    return found


def is_log(scale: Scale, lines: Sequence[Float64]) -> bool:
    """Whether lines are drawn on a log axis.

    ``"auto"`` is linear, which shows the shape of each line, except where it would press lines flat: where one of them
    is for a tenth of its length below a hundredth of the highest rate, or where most are below a tenth of it for half
    of theirs. Rates of zero count for neither: no axis tells them apart.

    Args:
        scale: ``"auto"``, ``"log"`` or ``"linear"``.
        lines: Rates of each group, shape (n,) each.

    Raises:
        SpecError: No such scale, or ``"log"`` where every rate is zero.
    """
    if scale not in SCALES:
        raise SpecError(f"scale={shown(scale)}: must be one of {', '.join(map(repr, SCALES))}.")
    moving = [rates[rates > 0] for rates in lines if (rates > 0).any()]
    if scale == "log" and not moving:
        raise SpecError("scale='log': every rate is 0, which a log axis cannot show. Use scale='linear'.")
    if scale != "auto" or not moving:
        return scale == "log"
    highest = max(float(rates.max()) for rates in moving)
    flat = min(low_rate(rates) for rates in moving) < highest / _PRESSED
    crowded = sum(float(np.median(rates)) < highest / _CROWDED for rates in moving)
    return flat or 2 * crowded > len(moving)


def low_rate(rates: Float64) -> float:
    """What a line is below for a tenth of its length, zeros left out; infinity where all of it is zero."""
    above = rates[rates > 0]
    return float(np.quantile(above, 0.1, method="lower")) if len(above) else np.inf


def sparklines(plan: RateTable) -> list[str]:
    """Each group's rate over the run as up to 16 block characters, each group on a scale of its own.

    Linear from zero to the group's highest rate; log where that is more than a hundred times its lowest one, and that
    is not zero. A character is the median of its
    part of the run, or the lowest or highest rate there that stands out. Where stdout cannot encode blocks, ASCII.
    """
    try:
        cells = _cells(plan)
    except SpecError:  # of a rate somewhere in the run, which the plan's text need not stop at
        return ["?"] * len(plan.groups)
    shapes = _BLOCKS if _encodable(_BLOCKS) else _ASCII
    return ["".join(shapes[level] for level in _levels(*group)) for group in cells]


def _cells(plan: RateTable) -> list[tuple[Float64, float, float]]:
    """For each group, what each cell shows, and the lowest and highest rate of the run."""
    total = plan.total_steps or 0
    looked_at = min(total, _MOST_STEPS)
    edges = np.linspace(0, looked_at, min(CELLS, total) + 1).astype(np.int64)
    shown, lows, highs = [], [], []
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        steps = np.arange(first, stop)
        table = plan.table(first, stop) if looked_at == total else plan.at(steps * (total - 1) // (looked_at - 1))
        low, middle, high = table.min(axis=0), np.median(table, axis=0), table.max(axis=0)
        above, below = high - middle, middle - low
        shown.append(np.where(above > _SPIKE * below, high, np.where(below > _SPIKE * above, low, middle)))
        lows.append(low)
        highs.append(high)
    if not shown:
        return [(np.empty(0), 0.0, 0.0) for _ in plan.groups]
    return list(zip(np.array(shown).T, np.min(lows, axis=0).tolist(), np.max(highs, axis=0).tolist(), strict=True))


def _levels(rates: Float64, lowest: float, highest: float) -> list[int]:
    if lowest > 0 and highest > _PRESSED * lowest:
        part = np.log(rates / lowest) / np.log(highest / lowest)
    else:
        part = rates / highest if highest else np.zeros(len(rates))
    return np.clip(np.ceil(part * len(_BLOCKS)) - 1, 0, len(_BLOCKS) - 1).astype(int).tolist()  # type: ignore[no-any-return]


def _encodable(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
