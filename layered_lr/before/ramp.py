"""The plan of a rate search: every group's rate rises from update to update, and the ratios between groups stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import Module
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import REST, resolve
from layered_lr.plans.unused_rates import ignores_lr
from layered_lr.printed import shown
from layered_lr.schedules import Constant, Table
from layered_lr.spec.groups import Group
from layered_lr.spec.phases import Phase
from layered_lr.spelling import did_you_mean

_MOST_STEPS = 4096  # of a run, whose rates are looked at for the highest one


class Ramp(NamedTuple):
    """What a search does to the groups of a plan.

    Args:
        plan: In which the rates rise.
        base: The rate of the user's spec that takes the place of ``lr``: at ``lr == base`` each group has its own rate.
        scales: How many times ``lr`` each group's rate is, by the group's name; of a search for one group, 1 for it.
        fixed: The rates of those groups whose rates stay, by name; empty unless one group is searched for.
    """

    plan: Plan
    base: float
    scales: dict[str, float]
    fixed: dict[str, float]


def ramp_rates(start: float, end: float, steps: int) -> Float64:
    """The rates of a search, ``start * (end / start) ** (i / (steps - 1))``, shape (steps,).

    Example:
        >>> ramp_rates(0.001, 1.0, 4).round(4).tolist()
        [0.001, 0.01, 0.1, 1.0]
    """
    return start * (end / start) ** (np.arange(steps) / (steps - 1))


def choose_phase(plan: Plan, phase: int) -> Plan:
    """The plan of one phase, counted from 1; without phases, the whole plan.

    Raises:
        SpecError: There is no such phase.
    """
    plans = plan.phase_plans
    if phase > len(plans):
        raise SpecError(f"phase={phase}: the plan has {len(plans)}.")
    return plans[phase - 1]


def own_rate(plan: Plan, group: PlanGroup) -> float:
    """The rate that a group's schedule begins from, before ``lr_scale``: its ``lr``.

    Where the schedule sets the rate to its own numbers (``OneCycleLR(max_lr=...)``), it is the highest of them.
    """
    if not ignores_lr(plan, group):
        return group.lr
    stop = max(plan.total_steps or plan.start + 1, plan.start + 1)
    steps = np.unique(np.linspace(plan.start, stop - 1, min(stop - plan.start, _MOST_STEPS)).astype(np.int64))
    return float(plan.rates_before_scale(group, steps).max())


def make_ramp(plan: Plan, model: Module, rates: Float64, group: str | None, phase: int) -> Ramp:
    """Make the plan of a search.

    Args:
        plan: Of the run.
        model: For which the plan is made.
        rates: The rates to try, one for each update.
        group: The name of the group whose rate is searched for; None is all groups together.
        phase: The phase of the run whose optimizer and frozen groups hold, from 1.

    Raises:
        SpecError: There is no such group or phase, or the rates to multiply are 0.
    """
    there = choose_phase(plan, phase)
    own = {one.name: own_rate(there, one) for one in there.groups}
    if group is None:
        base = _base_of(there, own)
        scales = {one.name: one.lr_scale * (own[one.name] / base) for one in there.groups}
        fixed: dict[str, float] = {}
    else:
        chosen = _find_group(there, group)
        base = chosen.lr_scale * own[chosen.name]
        if not base > 0:
            raise SpecError(
                f"group={group!r}: its rate is 0 (lr={own[chosen.name]:g}, lr_scale={chosen.lr_scale:g}), so that no "
                "factor of it can be searched for. Give the group a rate > 0, such as a first guess."
            )
        scales = {chosen.name: 1.0}
        fixed = {one.name: one.lr_scale * own[one.name] for one in there.groups if one.name != chosen.name}
    rising = Table(rates.tolist())
    groups = [
        _searched(each, scales[each.label], rising)
        if each.label in scales
        else replace(each, lr=own[each.label], schedule=Constant())
        for each in there.spec.groups
    ]
    spec = there.spec
    if REST not in scales:
        spec = replace(spec, optimizer=replace(spec.optimizer, lr=own.get(REST, spec.optimizer.lr)), schedule=None)
    else:
        spec = replace(spec, schedule=rising)
    spec = replace(spec, groups=groups, phases=keep_frozen(there))
    return Ramp(resolve(spec, model, len(rates), plan.steps_per_epoch), base, scales, fixed)


def keep_frozen(plan: Plan) -> tuple[Phase, ...]:
    """One phase over a whole run that freezes what a phase's plan freezes; none where it is no phase."""
    if plan.phase is None:
        return ()
    given = plan.phase
    return (Phase(frozen=given.frozen, trained=given.trained, batch_norm=given.batch_norm, dropout=given.dropout),)


def _searched(group: Group, scale: float, rising: Table) -> Group:
    return replace(group, lr=None, lr_scale=scale, schedule=rising)


def _base_of(plan: Plan, own: dict[str, float]) -> float:
    """The rate of the spec's optimizer, or of its schedule where that sets the rate itself."""
    usual = own.get(REST)
    if usual is None:
        by_name = {group.label: group for group in plan.spec.groups}
        inherits = [group for group in plan.groups if by_name[group.name].schedule is None and ignores_lr(plan, group)]
        usual = own[inherits[0].name] if inherits else plan.spec.optimizer.lr
    if not usual > 0:
        raise SpecError(
            f"find_lr: the rate of the spec's optimizer is {usual:g}, and every other one is searched for as a "
            "multiple of it. Give it a rate > 0, such as a first guess; the groups' ratios to it are kept."
        )
    return usual


def _find_group(plan: Plan, name: Any) -> PlanGroup:
    names = [group.name for group in plan.groups]
    if not isinstance(name, str) or name not in names:
        hint = did_you_mean(name, names) if isinstance(name, str) else ""
        raise SpecError(f"group={shown(name)}: the plan has no such group.{hint} It has: {', '.join(names)}.")
    group = plan.groups[names.index(name)]
    if not group.parameters:
        raise SpecError(f"group={name!r}: it has no parameters in this model.")
    still = plan.frozen.union(each.name for each in plan.parameters if not each.requires_grad)
    if still.issuperset(group.parameters):
        raise SpecError(
            f"group={name!r}: it is frozen, so that no rate moves it. Choose a phase=... in which it trains, or "
            "another group."
        )
    return group
