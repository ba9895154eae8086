"""What a person would want to be warned of before a run: what is allowed, and seldom meant."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from layered_lr.errors import LayeredLRError
from layered_lr.models.where import is_named_as_norm, is_of_a_norm
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.schedule_lengths import Course, course_of
from layered_lr.plans.view import PlanView
from layered_lr.schedules import Schedule
from layered_lr.schedules.reference import Reference

_FAR_APART = 1000.0
_MOST_STEPS = 4096  # whose rates are looked at; of a longer run, so many over its whole length
_MOST_NAMES = 3
_ALMOST = 0.01  # part of a length that rounding to whole epochs or steps may make


def find_warnings(plan: PlanView) -> Iterator[str]:
    """Yield a sentence for each thing in a plan that is seldom meant.

    A group that never moves, a rate a thousand times another's, a schedule that ends before the run or beyond it, and
    weight decay on normalisations.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0)])
        >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
        >>> print(*find_warnings(plan))
        group 'body' never moves: its lr_scale is 0
    """
    peaks = np.array([group.lr * group.lr_scale for group in plan.groups])
    if not any(_names_function(group.schedule) for each in plan.phase_plans for group in each.groups):
        with contextlib.suppress(LayeredLRError):  # of a rate somewhere in the run: whoever asks for that step is told
            peaks = _peaks(plan)
    still = set()
    for group, peak in zip(plan.groups, peaks, strict=True):
        if why := _why_still(plan, group, peak):
            still.add(group.name)
            yield f"group {group.name!r} never moves: {why}"
    yield from _far_apart(plan, peaks, still)
    if plan.total_steps:
        by_wrong: dict[str, list[str]] = {}
        for place, group in enumerate(plan.groups):
            for wrong in _wrong_lengths(plan, place, still):
                by_wrong.setdefault(wrong, []).append(group.name)
        yield from (f"{_named(names)}: {wrong}" for wrong, names in by_wrong.items())
    yield from _decayed_norms(plan, still)


def _peaks(plan: PlanView) -> Any:
    """The highest rate of each group, shape (groups,)."""
    total = plan.total_steps
    if total is None or total <= _MOST_STEPS:
        return np.max(plan.table(0, _MOST_STEPS if total is None else total), axis=0, initial=0.0)
    starts = [phase.start for phase in plan.phases if phase.start < total]
    steps = np.unique([*np.linspace(0, total - 1, _MOST_STEPS).astype(np.int64), *starts])
    return np.max(plan.at(steps), axis=0, initial=0.0)


def _names_function(part: Any) -> bool:
    """Whether a schedule, or one inside of it, names a function: to warn of something is no reason to import it."""
    if isinstance(part, Schedule):
        return any(map(_names_function, vars(part).values()))
    return isinstance(part, Reference) or (isinstance(part, list | tuple) and any(map(_names_function, part)))


def _why_still(plan: PlanView, group: PlanGroup, peak: float) -> str:
    """Why nothing of a group moves in the whole run; empty where something does, or where it has no parameters."""
    if not group.parameters or plan.total_steps == 0:
        return ""
    if find_frozen_by_hand(plan.parameters).issuperset(group.parameters):
        return "all of its parameters have requires_grad=False"
    there = [one for phase in plan.phase_plans for one in phase.groups if one.name == group.name]
    if all(phase.is_frozen(one) for phase, one in zip(plan.phase_plans, there, strict=True)):
        return "it is frozen in every phase"
    if peak > 0:
        return ""
    if all(one.lr_scale == 0 for one in there):
        return "its lr_scale is 0"
    if all(one.lr == 0 for one in there):
        return "its lr is 0"
    return "" if plan.total_steps is None else "its rate is 0 at every step"


def _far_apart(plan: PlanView, peaks: Any, still: set[str]) -> Iterator[str]:
    """Yield a sentence for each group that is a thousand times slower than another one of the same optimizer."""
    by_kind: dict[type, list[tuple[str, float]]] = {}
    for group, peak in zip(plan.groups, peaks.tolist(), strict=True):
        is_layer = plan.spec.layer_decay is not None and group.name.startswith("layer ")
        if group.parameters and group.name not in still and peak > 0 and not is_layer:
            by_kind.setdefault(type(group.optimizer), []).append((group.name, peak))
    for rates in by_kind.values():
        fastest, highest = max(rates, key=lambda rate: rate[1])
        slow = [(name, rate) for name, rate in rates if rate * _FAR_APART <= highest * (1 + 1e-9)]
        for name, rate in slow[:_MOST_NAMES]:
            yield (
                f"group {name!r} trains at {rate:g} at most, {highest / rate:,.0f} times below group {fastest!r} "
                f"({highest:g})"
            )
        if len(slow) > _MOST_NAMES:
            yield f"{len(slow) - _MOST_NAMES} more groups are a thousand times slower than group {fastest!r}"


class _Use(NamedTuple):
    """Updates in which a group has one schedule, counted from one update."""

    schedule: Any
    since: int
    stop: int
    is_last: bool
    trains: bool


def _uses(plan: PlanView, place: int) -> Iterator[_Use]:
    total = plan.total_steps or 0
    spans = [(phase.stop or total, phase.plan) for phase in plan.phases] or [(total, plan)]

    def key(span: tuple[int, Any]) -> Any:
        group = span[1].groups[place]
        return group.schedule, span[1].since, group.lr

    for (schedule, since, _), parts in groupby(spans, key):
        each = list(parts)
        stop = each[-1][0]
        trains = any(not there.is_frozen(there.groups[place]) for _, there in each)
        yield _Use(schedule, since, stop, stop >= total, trains)


def _wrong_lengths(plan: PlanView, place: int, still: set[str]) -> Iterator[str]:
    """Yield what is wrong with each schedule of a group that ends before the run, or beyond it."""
    group = plan.groups[place]
    if not group.parameters or group.name in still:
        return
    for use in _uses(plan, place):
        if not use.trains or not (use.is_last or use.since):
            continue  # what a schedule is cut by is a phase that begins, and the plan shows it
        course = course_of(use.schedule)
        last = use.schedule.position(use.stop - 1 - use.since, plan.steps_per_epoch or 1)
        if course is not None and (wrong := _compare(course, float(last), use.schedule.unit)):
            yield wrong


def _compare(course: Course, last: float, unit: str) -> str:
    """What is wrong between a schedule's course and the last position that it is asked for; empty where nothing is."""
    length = math.floor(last) + 1
    where = f"{unit} {course.end:g}"
    if course.after and last > course.end * (1 + _ALMOST):
        return f"{course.name} ends at {where}, before the run does ({length} {unit}s): {course.after}"
    if course.end > length * (1 + _ALMOST) or (course.jumps and course.end >= length):
        what = "has nothing to do before" if course.jumps else "ends at"
        return f"{course.name} {what} {where}, beyond the run, which has {length} {unit}s for it"
    return ""


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMES])) + (", …" if len(names) > _MOST_NAMES else "")
    return f"group{'s' * (len(names) > 1)} {shown}"


def _decayed_norms(plan: PlanView, still: set[str]) -> Iterator[str]:
    """Yield a sentence where weight decay pulls at parameters of normalisations."""
    by_name = {parameter.name: parameter for parameter in plan.parameters}
    found: dict[str, None] = {}
    for phase in plan.phase_plans:
        for group in phase.groups:
            if group.name in still or not getattr(group.optimizer, "weight_decay", 0.0):
                continue
            for name in group.parameters:
                parameter = by_name[name]
                is_norm = is_of_a_norm(parameter) if parameter.types else is_named_as_norm(parameter)
                moves = parameter.requires_grad and name not in phase.frozen and name not in group.undecayed
                if is_norm and moves:
                    found[name] = None
    if found:
        names = list(found)
        shown = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
        yield (
            f"weight decay pulls {len(names)} parameter{'s' * (len(names) > 1)} of normalisations towards 0: {shown}. "
            "no_weight_decay='1d' leaves them out"
        )
