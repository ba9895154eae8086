"""What two plans do otherwise: groups, membership, settings, and rates step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layered_lr.plans.group import PlanGroup
from layered_lr.plans.view import PlanView

_BLOCK_STEPS = 65_536
_UNKNOWN_LENGTH_STEPS = 10_000  # compared where neither plan knows how long the run is
_SHOWN = 10


@dataclass(frozen=True)
class Change:
    """A setting that differs.

    Args:
        group: Whose; empty for the whole plan's.
        what: ``lr``, ``lr_scale``, ``schedule``, a hyperparameter, ``total_steps``, ...
        before: In the plan that was asked.
        after: In the other.
    """

    group: str
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        where = f"group {self.group!r}: " if self.group else ""
        return f"{where}{self.what} {self.before!r} -> {self.after!r}"


@dataclass(frozen=True)
class RateDifference:
    """Where the rates of a group that both plans have differ.

    Args:
        group: Its name.
        first_step: The first step at which they differ.
        steps: At how many steps they do.
        largest_step: The step of the largest absolute difference.
        before: The rate there in the plan that was asked.
        after: The rate there in the other.
    """

    group: str
    first_step: int
    steps: int
    largest_step: int
    before: float
    after: float

    @property
    def largest(self) -> float:
        """The largest absolute difference."""
        return abs(self.after - self.before)

    def __str__(self) -> str:
        return (
            f"group {self.group!r}: rates differ at {self.steps:,} steps, first at step {self.first_step:,}, "
            f"most at step {self.largest_step:,}: {self.before:.6g} -> {self.after:.6g}"
        )


@dataclass(frozen=True)
class PlanDiff:
    """What differs between two plans; false where nothing does. Print it to read it.

    Args:
        added: Groups that only the other plan has.
        gone: Groups that only the plan that was asked has.
        moved: Parameters in another group: name, group before, group after; None where the plan lacks the parameter.
        changes: Settings that differ.
        rates: Groups whose rates differ, over the steps that both plans have.
    """

    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    moved: tuple[tuple[str, str | None, str | None], ...] = ()
    changes: tuple[Change, ...] = ()
    rates: tuple[RateDifference, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.gone or self.moved or self.changes or self.rates)

    def __str__(self) -> str:
        if not self:
            return "the plans are the same"
        moves = [f"{name}: {before or 'not there'} -> {after or 'not there'}" for name, before, after in self.moved]
        if len(moves) > _SHOWN:
            moves[_SHOWN:] = [f"... and {len(moves) - _SHOWN:,} more parameters"]
        return "\n".join(
            [f"group {name!r} added" for name in self.added]
            + [f"group {name!r} gone" for name in self.gone]
            + moves
            + list(map(str, self.changes))
            + list(map(str, self.rates))
        )


def compare_plans(before: PlanView, after: PlanView) -> PlanDiff:
    """What ``after`` does otherwise than ``before``.

    Groups are matched by name. Rates are compared to the last bit over the steps that both plans have; where
    neither knows its length, over the first 10,000.

    Raises:
        SpecError: A rate that is impossible at one of these steps.
    """
    old, new = ({group.name: group for group in plan.groups} for plan in (before, after))
    return PlanDiff(
        added=tuple(name for name in new if name not in old),
        gone=tuple(name for name in old if name not in new),
        moved=tuple(_moved(before, after)),
        changes=tuple(_changes(before, after)),
        rates=tuple(_rates(before, after)),
    )


def _moved(before: PlanView, after: PlanView) -> Iterator[tuple[str, str | None, str | None]]:
    for name in dict.fromkeys(p.name for plan in (before, after) for p in plan.parameters):
        owners = [plan.groups[plan.group_of[name]].name if name in plan.group_of else None for plan in (before, after)]
        if owners[0] != owners[1]:
            yield name, owners[0], owners[1]


def _changes(before: PlanView, after: PlanView) -> Iterator[Change]:
    for what in ("total_steps", "steps_per_epoch"):
        yield from _unequal("", {what: getattr(before, what)}, {what: getattr(after, what)})
    for what in ("no_weight_decay", "clip_grad_norm", "clip_grad_value", "clip_per_group"):
        yield from _unequal("", {what: getattr(before.spec, what)}, {what: getattr(after.spec, what)})
    names = [[group.name for group in plan.groups] for plan in (before, after)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        yield Change("", "order of the groups", tuple(names[0]), tuple(names[1]))
    known = {p.name: p for p in before.parameters}
    for parameter in after.parameters:
        if (old := known.get(parameter.name)) is not None:
            about = (f"shape of {old.name}", f"other names of {old.name}")
            yield from _unequal(
                "",
                dict(zip(about, (old.shape, old.aliases), strict=True)),
                dict(zip(about, (parameter.shape, parameter.aliases), strict=True)),
            )
    groups = {group.name: group for group in before.groups}
    for group in after.groups:
        if group.name in groups:
            yield from _unequal(group.name, _settings(groups[group.name]), _settings(group))


def _settings(group: PlanGroup) -> dict[str, Any]:
    optimizer = {"optimizer": type(group.optimizer).__name__, **asdict(group.optimizer)}
    return {
        "lr_scale": group.lr_scale,
        "schedule": group.schedule,
        "without weight decay": len(group.undecayed),
        **optimizer,
    }


def _unequal(group: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for what in {**before, **after}:
        if before.get(what) != after.get(what):
            yield Change(group, what, before.get(what), after.get(what))


def _rates(before: PlanView, after: PlanView) -> Iterator[RateDifference]:
    lengths = [plan.total_steps for plan in (before, after) if plan.total_steps is not None]
    stop = min(lengths, default=_UNKNOWN_LENGTH_STEPS)
    places = {group.name: place for place, group in enumerate(after.groups)}
    common = [(place, places[group.name]) for place, group in enumerate(before.groups) if group.name in places]
    found: dict[int, RateDifference] = {}
    for start in range(0, stop, _BLOCK_STEPS):
        old, new = (plan.table(start, min(start + _BLOCK_STEPS, stop)) for plan in (before, after))
        for mine, its in common:
            distance = np.abs(new[:, its] - old[:, mine])
            unequal = np.flatnonzero(distance)
            if not unequal.size:
                continue
            top = int(distance.argmax())
            here = RateDifference(
                before.groups[mine].name,
                start + int(unequal[0]),
                len(unequal),
                start + top,
                float(old[top, mine]),
                float(new[top, its]),
            )
            found[mine] = _join(found[mine], here) if mine in found else here
    yield from (found[mine] for mine in sorted(found))


def _join(earlier: RateDifference, later: RateDifference) -> RateDifference:
    larger = later if later.largest > earlier.largest else earlier
    steps = earlier.steps + later.steps
    return RateDifference(earlier.group, earlier.first_step, steps, larger.largest_step, larger.before, larger.after)
