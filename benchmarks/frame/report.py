"""What a benchmark found: series of rounds, ratios of opponents with a verdict, curves; to JSON and back."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layered_lr.files import read_plain
from layered_lr.outputs import write_whole
from layered_lr.strict_json import json_text

FORMAT = "layered_lr.benchmarks 1"
FEWEST_ROUNDS = 3  # of fewer, nobody can say what is noise


class Spread:
    """Rounds, and what is in the middle of them."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        """The least round."""
        return min(self.rounds)

    @property
    def high(self) -> float:
        """The largest round."""
        return max(self.rounds)


@dataclass(frozen=True)
class Target:
    """What a figure has to be.

    Args:
        value: The bound; the bound itself is reached.
        at_most: Whether the figure must not be above it; false: not below it.
    """

    value: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.value:g}"

    def verdict(self, spread: Spread) -> str:
        """``reached`` or ``not reached``, by the median; and whether the rounds themselves leave that open."""
        said = "reached" if self._holds(spread.median) else "not reached"
        if isinstance(spread, Ratio) and len(spread.rounds) < FEWEST_ROUNDS:
            return f"{said} (too few rounds to tell)"
        open_ = self._holds(spread.low) != self._holds(spread.high)
        return f"{said} (within noise of the target)" if open_ else said

    def _holds(self, value: float) -> bool:
        return value <= self.value if self.at_most else value >= self.value


@dataclass(frozen=True)
class Series(Spread):
    """One quantity of one opponent, a value for each round.

    Args:
        name: The opponent.
        quantity: What was measured, such as ``"time of an epoch"``.
        unit: Of the values, such as ``"s"``.
        rounds: In the order in which they were taken.
        target: Of the median.
        note: What a reader has to know of this row.
    """

    name: str
    quantity: str
    unit: str
    rounds: tuple[float, ...]
    target: Target | None = None
    note: str = ""


@dataclass(frozen=True)
class Ratio(Spread):
    """One opponent over another, round by round: what disturbs a round disturbs both.

    Args:
        name: ``"one / other"``.
        quantity: Of both.
        rounds: The ratio of each round.
        target: Of the median.
        note: What a reader has to know of this row.
    """

    name: str
    quantity: str
    rounds: tuple[float, ...]
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the opponents differ: only where all rounds lie on one side of 1."""
        if len(self.rounds) < FEWEST_ROUNDS:
            return "too few rounds to tell"
        if self.low <= 1 <= self.high:
            return "no difference (within noise)"
        share = abs(self.median - 1)
        if self.median >= 2:
            return f"{self.median:.3g} times as much"
        return f"{share:.1%} {'less' if self.median < 1 else 'more'}"


@dataclass(frozen=True)
class Curve:
    """How a quantity grows.

    Args:
        name: Of the line.
        along: What grows, such as ``"steps"``.
        quantity: What is measured.
        unit: Of ``y``.
        x: Increasing.
        y: The median of the rounds at each ``x``.
        rounds: All rounds at each ``x``.
        target: Of the slope.
    """

    name: str
    along: str
    quantity: str
    unit: str
    x: tuple[float, ...]
    rounds: tuple[tuple[float, ...], ...]
    target: Target | None = None

    @property
    def y(self) -> tuple[float, ...]:
        """The median at each ``x``."""
        return tuple(statistics.median(taken) for taken in self.rounds)

    @property
    def slope(self) -> float:
        """Of the straight line through the last three points in a log-log picture: 1 is linear.

        Small sizes show constant costs; how something grows shows at the large ones.
        """
        xs, ys = [math.log(x) for x in self.x[-3:]], [math.log(max(y, 1e-12)) for y in self.y[-3:]]
        return statistics.linear_regression(xs, ys).slope if len(xs) > 1 else float("nan")

    @property
    def verdict(self) -> str:
        """Whether the slope is within its target."""
        if self.target is None:
            return ""
        return "reached" if self.slope <= self.target.value else "not reached"


@dataclass(frozen=True)
class Report:
    """What a benchmark found, and on what.

    Args:
        name: Of the benchmark.
        question: That it answers.
        series: What was measured.
        ratios: Opponents against each other.
        curves: How things grow.
        missing: Opponents that are not here, each with the reason.
        notes: Sentences that belong to the figures.
        about: Machine, versions, command, quick, seconds.
    """

    name: str
    question: str
    series: tuple[Series, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    curves: tuple[Curve, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def skipped(self) -> bool:
        """Whether nothing could be measured here."""
        return not (self.series or self.ratios or self.curves)

    def to_dict(self) -> dict[str, Any]:
        """As plain tables, with what follows from the rounds beside them."""
        found: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        for part, of in zip(found["series"], self.series, strict=True):
            part.update(_spread(of), reached=_reached(of))
        for part, ratio in zip(found["ratios"], self.ratios, strict=True):
            part.update(_spread(ratio), reached=_reached(ratio), verdict=ratio.verdict)
        for part, curve in zip(found["curves"], self.curves, strict=True):
            part.update(y=curve.y, slope=curve.slope, verdict=curve.verdict)
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Report:
        """What ``to_dict`` made; what follows from the rounds is made anew from them."""
        return cls(
            name=found["name"],
            question=found["question"],
            series=tuple(Series(**_given(part, Series)) for part in found["series"]),
            ratios=tuple(Ratio(**_given(part, Ratio)) for part in found["ratios"]),
            curves=tuple(Curve(**_given(part, Curve)) for part in found["curves"]),
            missing=dict(found["missing"]),
            notes=tuple(found["notes"]),
            about=dict(found["about"]),
        )

    def write(self, path: Path) -> None:
        """As JSON."""
        write_whole(path, [(json_text(self.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()])

    @classmethod
    def read(cls, path: Path) -> Report:
        """From what ``write`` wrote."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def is_report(path: Path) -> bool:
    """Whether a file is one that ``Report.write`` wrote."""
    try:
        return str(json.loads(read_plain(path)).get("format")).startswith("layered_lr.benchmarks ")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def ratio(one: Series, other: Series, target: Target | None = None, note: str = "") -> Ratio:
    """``one / other`` of each round in which both were measured."""
    pairs = zip(one.rounds, other.rounds, strict=False)
    return Ratio(f"{one.name} / {other.name}", one.quantity, tuple(a / b for a, b in pairs), target, note)


def _spread(of: Spread) -> dict[str, float]:
    return {"min": of.low, "median": of.median, "max": of.high}


def _reached(of: Series | Ratio) -> str | None:
    return None if of.target is None else of.target.verdict(of)


def _given(part: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names: Sequence[str] = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    given = {name: _tuples(part[name]) for name in names if name in part}
    if given.get("target"):
        given["target"] = Target(**given["target"])
    return given


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
