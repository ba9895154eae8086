"""The differences between two plans: groups, their parameters, settings, and rates step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from layered_lr.plans.group import PlanGroup
from layered_lr.plans.view import PlanView
from layered_lr.printed import harmless

_BLOCK_STEPS = 65_536
_UNKNOWN_LENGTH_STEPS = 10_000  # so many steps are compared if neither plan knows the length of the run
_SHOWN = 10


@dataclass(frozen=True)
class Change:
    """A setting that differs.

    Args:
        group: The name of the group; empty for a setting of the whole plan.
        what: The name of the setting: ``lr``, ``lr_scale``, ``schedule``, ``total_steps``, ...
        before: Its value in the first plan.
        after: Its value in the second plan.
    """

    group: str
    what: str
    before: object
    after: object

    def __str__(self) -> str:
        where = f"group {self.group!r}: " if self.group else ""
        return f"{where}{self.what} {self.before!r} -> {self.after!r}"


@dataclass(frozen=True)
class RateDifference:
    """How the rates of one group differ between two plans.

    Args:
        group: The name of the group.
        first_step: The first step at which the rates differ.
        steps: The number of steps at which they differ.
        largest_step: The step of the largest absolute difference.
        before: The rate at ``largest_step`` in the first plan.
        after: The rate at ``largest_step`` in the second plan.
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
    """The differences between two plans; it is false if there are none. Print it to read it.

    Args:
        added: Groups that only the second plan has.
        gone: Groups that only the first plan has.
        moved: Parameters that changed their group: name, group before, group after. The group is None if the plan does
            not have the parameter.
        changes: Settings that differ.
        rates: Groups whose rates differ, over the steps that both plans have.

    Example:
        >>> import layered_lr as ll
        >>> parameters = [("backbone.weight", (8, 8)), ("head.weight", (2, 8))]
        >>> before = ll.resolve(ll.Spec(ll.SGD(0.1)), parameters, total_steps=100)
        >>> after = ll.resolve(ll.Spec(ll.SGD(0.2)), parameters, total_steps=100)
        >>> print(before.diff(after))
        group 'rest': lr 0.1 -> 0.2
        group 'rest': rates differ at 100 steps, first at step 0, most at step 0: 0.1 -> 0.2
        >>> bool(before.diff(before))
        False
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
        return harmless(
            "\n".join(
                [f"group {name!r} added" for name in self.added]
                + [f"group {name!r} gone" for name in self.gone]
                + moves
                + list(map(str, self.changes))
                + list(map(str, self.rates))
            )
        )


def compare_plans(before: PlanView, after: PlanView) -> PlanDiff:
    """Find the differences between two plans.

    Groups are matched by name. Rates are compared bit for bit over the steps that both plans have; if neither knows the
    length of the run, over the first 10,000 steps.

    Args:
        before: The first plan.
        after: The second plan.

    Raises:
        SpecError: A rate at one of these steps is negative or not finite.
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


def _settings(group: PlanGroup) -> dict[str, object]:
    optimizer = {"optimizer": type(group.optimizer).__name__, **asdict(group.optimizer)}
    return {
        "lr_scale": group.lr_scale,
        "schedule": group.schedule,
        "without weight decay": len(group.undecayed),
        **optimizer,
    }


def _unequal(group: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[Change]:
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
        for column, other in common:
            distance = np.abs(new[:, other] - old[:, column])
            unequal = np.flatnonzero(distance)
            if not unequal.size:
                continue
            top = int(distance.argmax())
            here = RateDifference(
                before.groups[column].name,
                start + int(unequal[0]),
                len(unequal),
                start + top,
                float(old[top, column]),
                float(new[top, other]),
            )
            found[column] = _join(found[column], here) if column in found else here
    yield from (found[column] for column in sorted(found))


def _join(earlier: RateDifference, later: RateDifference) -> RateDifference:
    larger = later if later.largest > earlier.largest else earlier
    steps = earlier.steps + later.steps
    return RateDifference(earlier.group, earlier.first_step, steps, larger.largest_step, larger.before, larger.after)
