"""A plan as text: the table that ``print(plan)`` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

from layered_lr.errors import LayeredLRError
from layered_lr.optimizers import Optimizer
from layered_lr.plans.frozen_by_hand import count_training, find_frozen_by_hand
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.lowering import cost_of_phases, lowering_of
from layered_lr.plans.view import PlanPhaseView, PlanView
from layered_lr.reports.curves import sparklines
from layered_lr.reports.tables import ReportTable, shortened, wrapped

_MOST_CHECKED_STEPS = 10**7  # whose rates a backend looks at in seconds, to tell how it applies them
_LONGEST_SCHEDULE = 240  # characters; plan.to_dict() has all of a longer one
_NUMBERS = frozenset(["parameters", "elements", "lr", "lr_scale", "first rate", "last rate"])


class PlanParts(NamedTuple):
    """The parts of a plan's text.

    Args:
        headline: Optimizer, parameters and length of the run.
        table: A row for each group.
        below: What else there is to say, line by line.
    """

    headline: str
    table: ReportTable
    below: list[str]


def plan_text(plan: PlanView, backend: str | None = None) -> str:
    """The plan as a table: groups, their parameters, rates over the run, and how a backend applies them.

    The table fits the terminal, or ``COLUMNS`` where it is set. Where stdout is no terminal, lines of the table have at
    most 160 characters, and sentences are not wrapped.

    Args:
        plan: What to show.
        backend: Whose lowering to show; None shows the Graph's, the only one that differs by group.
    """
    parts = plan_parts(plan, backend)
    return "\n".join([wrapped(parts.headline), parts.table.text(), *map(wrapped, parts.below)])


def plan_parts(plan: PlanView, backend: str | None = None) -> PlanParts:
    """What ``plan_text`` says, in parts."""
    shown = backend or "oneflow-graph"
    lowerings, legend = _lowerings(plan, shown)
    frozen = find_frozen_by_hand(plan.parameters)
    columns = {
        "group": [group.name for group in plan.groups],
        "parameters": [count_training(group.parameters, frozen) for group in plan.groups],
        "elements": [f"{group.elements:,}" for group in plan.groups],
        "lr": [f"{group.lr:g}" for group in plan.groups],
        "lr_scale": [f"{group.lr_scale:g}" for group in plan.groups],
        "schedule": [shortened(repr(group.schedule), _LONGEST_SCHEDULE) for group in plan.groups],
        "first rate": [f"{rate:.6g}" for rate in plan.rates(0)],
    }
    if plan.spec.tells_depths:
        columns["depth"] = [_span_of_depths(plan, group) for group in plan.groups]
    if plan.total_steps is None:
        columns["last rate"] = ["?"] * len(plan.groups)
    else:
        columns["rate over the run"] = sparklines(plan)
        columns["last rate"] = [f"{rate:.6g}" for rate in plan.rates(max(plan.total_steps - 1, 0))]
    columns[shown] = lowerings
    if any(overrides := [_overrides(plan, group) for group in plan.groups]):
        columns["its own"] = overrides
    below = [legend]
    if backend is None:
        below.append("torch and oneflow-eager: every rate is set before each step, lr_scale multiplied in")
    below += [*_timeline(plan), *_extras(plan)]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    table = ReportTable(list(columns), rows, _NUMBERS)
    below += [f"warning: {warning}" for warning in plan.warnings]
    return PlanParts(_headline(plan), table, [*below, *(f"note: {note}" for note in plan.notes)])


def _span_of_depths(plan: PlanView, group: PlanGroup) -> str:
    """The numbers of the layers that a group's parameters are in."""
    depths = sorted({plan.depths[name] for name in group.parameters})
    if not depths:
        return ""
    return f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}"


def _timeline(plan: PlanView) -> list[str]:
    """Which phase is when, and what trains in it."""
    lines = []
    for number, phase in enumerate(plan.phases, start=1):
        there = phase.plan
        stop = "the end" if phase.stop is None else f"{phase.stop - 1:,}"
        lines.append(f"phase {number}: steps {phase.start:,} to {stop}: {_trained(there)}{_changed(plan, phase)}")
    return lines


def _trained(plan: PlanView) -> str:
    training = [(group, [name for name in group.parameters if name not in plan.frozen]) for group in plan.groups]
    parts = [
        group.name
        if len(names) == len(group.parameters)
        else f"{len(names)} of {len(group.parameters)} of {group.name}"
        for group, names in training
        if names
    ]
    if not parts:
        return "nothing trains"
    return "everything trains" if not plan.frozen else f"{', '.join(parts)} train{'s' if len(parts) == 1 else ''}"


def _changed(plan: PlanView, part: PlanPhaseView) -> str:
    """What the phase has otherwise than the spec."""
    phase, there = part.settings, part.plan
    parts = []
    if there.spec.optimizer != plan.spec.optimizer:
        parts.append(_optimizer(there.spec.optimizer))
    if phase.schedule is not None or phase.groups:
        parts.append("rates of its own")
    if phase.counts_from == "phase":
        parts.append("schedules count from here")
    if (phase.clip_grad_norm, phase.clip_grad_value) != (None, None):
        parts.append("clipping of its own")
    return "".join(f", {part}" for part in parts)


def _extras(plan: PlanView) -> list[str]:
    """What the spec asks for in addition to groups and rates."""
    extras = []
    if bare := sum(len(group.undecayed) for group in plan.groups):
        extras.append(f"no weight decay: {bare} of {len(plan.parameters)} parameters")
    if plan.spec.clip_grad_norm is not None:
        over = "of each group" if plan.spec.clip_per_group else "over all groups"
        extras.append(f"gradients are clipped to a norm of {plan.spec.clip_grad_norm:g} {over}")
    if plan.spec.clip_grad_value is not None:
        extras.append(f"gradients are clipped to {plan.spec.clip_grad_value:g} in each element")
    return extras


def _overrides(plan: PlanView, group: PlanGroup) -> str:
    """What the group sets otherwise than the optimizer, its rate aside."""
    if type(group.optimizer) is not type(plan.spec.optimizer):
        return _optimizer(group.optimizer)
    usual, own = asdict(plan.spec.optimizer), asdict(group.optimizer)
    return ", ".join(f"{name}={own[name]}" for name in own if name != "lr" and own[name] != usual[name])


def _headline(plan: PlanView) -> str:
    length = "length unknown" if plan.total_steps is None else f"{plan.total_steps:,} steps"
    epochs = f", {plan.steps_per_epoch:,} an epoch" if plan.steps_per_epoch else ""
    parameters = f"{len(plan.parameters)} parameter{'s' * (len(plan.parameters) != 1)}"
    if by_hand := len(find_frozen_by_hand(plan.parameters)):
        parameters += f" ({by_hand} with requires_grad=False)"
    return f"{_optimizer(plan.spec.optimizer)}, {parameters}, {length}{epochs}"


def _optimizer(optimizer: Optimizer) -> str:
    values = asdict(optimizer).items()
    settings = ", ".join(f"{name}={value}" for name, value in values if value is not None and value is not False)
    return f"{type(optimizer).__name__}({settings})"


def _lowerings(plan: PlanView, backend: str) -> tuple[list[str], str]:
    """Each group's part, and what goes for all of them."""
    if (plan.total_steps or 0) > _MOST_CHECKED_STEPS:
        return ["?"] * len(plan.groups), (
            f"{backend}: not shown for more than {_MOST_CHECKED_STEPS:,} steps, since it takes a look at each rate: "
            f"plan.lowering({backend!r})"
        )
    timeline = plan.phase_plans if plan.phases else ()
    try:
        by_phase = [lowering_of(there, backend, timeline) for there in plan.phase_plans]
    except LayeredLRError as error:
        return ["refused"] * len(plan.groups), f"{backend} refuses: {error}"
    lowerings = [lowering for phase in by_phase for lowering in phase]
    updates = "; ".join(dict.fromkeys(lowering.update for lowering in lowerings if lowering.update))
    scales = {"native": "native", "folded": "multiplied in"}
    scale = " or ".join(dict.fromkeys(scales[lowering.lr_scale] for lowering in lowerings))
    hows = ["; then ".join(dict.fromkeys(each.how for each in group)) for group in zip(*by_phase, strict=True)]
    legend = f"{backend}: lr_scale is {scale}" + (f", update: {updates}" if updates else "")
    if cost := cost_of_phases(plan, backend):
        legend += f"\n{backend}: {cost}"
    return hows, legend
