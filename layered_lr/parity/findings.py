"""What a comparison found out about each backend, and about each pair of backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.verdict import Verdict
from layered_lr.plans.plan import Plan

ByObservable = Mapping[str, Float64]


@dataclass(frozen=True, eq=False)
class Observed:
    """What one backend did, without its weights.

    Args:
        losses: Before each update, shape (steps,).
        rates: Of each group, read off the framework, shape (steps, groups).
        probed_rates: Of each group, read off the weights of a probe, shape (steps, groups); NaN where the reference
            does not move.
        grad_norms: Of each group before clipping, shape (steps, groups).
        update_norms: Of each section, shape (steps, sections).
        loss_bits: How many last bits the framework's cross-entropy is off where the answer is known.
        ended: Why it ended before the last step; empty where it did not.
        versions: Of the packages that took part.
        seconds: What the run took.
    """

    losses: Float64 = field(repr=False)
    rates: Float64 = field(repr=False)
    probed_rates: Float64 = field(repr=False)
    grad_norms: Float64 = field(repr=False)
    update_norms: Float64 = field(repr=False)
    loss_bits: float
    ended: str
    versions: dict[str, str]
    seconds: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two backends, compared with each other.

    Args:
        one: A backend; the reference, if it is one of the two.
        other: Another one.
        verdict: Whether they do the same.
        dtype: In which the runs are judged: float64 where both have it beside the runs that were asked for.
        differences: By observable: ``loss`` (steps, 1), ``gradient norm`` (steps, groups), ``update norm`` and
            ``weights`` (..., sections) of the runs in ``dtype``; ``rate``, ``probe: bare`` and the other rungs
            (steps, groups) of those that were asked for. The largest of a section.
        allowed: What rounding explains, shapes as in ``differences``; the largest of a section.
        shares: Shapes as in ``differences``: the largest difference divided by what rounding explains, over the arrays
            of a section. More than 1 is a difference. NaN where nothing can be told.
        run_differences: ``loss`` and ``weights`` as in ``differences``, of the runs that were asked for.
    """

    one: str
    other: str
    verdict: Verdict
    dtype: str
    differences: ByObservable = field(repr=False)
    allowed: ByObservable = field(repr=False)
    shares: ByObservable = field(repr=False)
    run_differences: ByObservable = field(repr=False)

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.one} / {self.other}"


class Found(Protocol):
    """A comparison as its report and its pictures see it; ``Comparison`` has all of it, and tells what each means."""

    # ruff: noqa: D102
    @property
    def reference(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def steps(self) -> int: ...
    @property
    def outcomes(self) -> dict[str, Outcome]: ...
    @property
    def observed(self) -> dict[str, Observed]: ...
    @property
    def pairs(self) -> tuple[Pair, ...]: ...
    @property
    def sections(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> Float64: ...
    @property
    def uninformative(self) -> dict[str, int | None]: ...
    @property
    def cannot_tell(self) -> dict[str, int]: ...
    @property
    def margin(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def same(self) -> bool: ...


def largest_known(values: Float64) -> float:
    """The largest value that is a number; 0 where there is none."""
    return float(np.nanmax(values, initial=0.0))
