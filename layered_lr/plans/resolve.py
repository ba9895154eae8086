"""From a spec and the parameters of a model to a plan."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.matching import assign, find_undecayed, find_unused_patterns, select_parameters
from layered_lr.models.nn_modules import framework_of, parameters_of
from layered_lr.models.parameter import Parameter
from layered_lr.optimizers.handover import check_carry
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan, PlanPhase
from layered_lr.schedules import Constant, Schedule
from layered_lr.spec.phases import Phase, Which, steps_until
from layered_lr.spec.spec import Spec

REST = "rest"

_UNSAID: tuple[Any, ...] = ((), "float32")  # a parameter's aliases and dtype


def resolve(
    spec: Spec,
    parameters: Any,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> Plan:
    """Assign every parameter to exactly one group.

    The first group that matches wins; what no group matches forms a last group, ``rest``, at the optimizer's
    ``lr``. A tied parameter (one array under several names) is one parameter, of the first group that matches
    any of its names.

    Args:
        spec: Groups in priority order; ``lr`` is dimensionless, per update.
        parameters: Names and shapes in model order, e.g. ``[("features.0.0.weight", (32, 3, 3, 3))]`` (OIHW),
            optionally with a third item, the tuple of the parameter's other names, and a fourth, its dtype; or a
            model of torch or OneFlow.
        total_steps: Updates of the whole run.
        steps_per_epoch: Updates of one epoch; needed by schedules with ``unit="epoch"``.

    Returns:
        Groups in spec order, names in model order.

    Raises:
        SpecError: A group that is not optional matches nothing that is left, a name that stands twice, no
            parameters at all, or a schedule in epochs without ``steps_per_epoch``.
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}: must be a layered_lr.Spec.")
    if total_steps is not None:
        total_steps = whole_number("total_steps", total_steps, 0)
    if steps_per_epoch is not None:
        steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch, 1)
    known = _check_parameters(parameters)
    whole = _resolve_whole(replace(spec, phases=()), known, total_steps, steps_per_epoch)
    if not spec.phases:
        return whole
    phases = tuple(_resolve_phases(spec, whole))
    return replace(whole, spec=spec, phases=phases, notes=(*whole.notes, *_notes_of_phases(spec, phases)))


def plan_from_dict(table: Mapping[str, Any]) -> Plan:
    """The plan that ``Plan.to_dict`` was called on.

    Args:
        table: What ``to_dict`` gave, also after a way through JSON.

    Raises:
        KeyError, SpecError: It is not such a table.
    """
    spec = Spec.from_dict(table["spec"])
    return resolve(spec, table["parameters"], table["total_steps"], table["steps_per_epoch"])


def _notes_of_phases(spec: Spec, phases: Sequence[PlanPhase]) -> Iterator[str]:
    """Where the phases and the run do not end together."""
    for number in range(len(phases) + 1, len(spec.phases) + 1):
        yield f"phase {number} never begins: the run ends after {phases[-1].stop} steps"
    if len(phases) > len(spec.phases):
        yield f"phase {len(phases)} is the spec without phases: it follows where the last of these ends"


def _resolve_phases(spec: Spec, whole: Plan) -> Iterator[PlanPhase]:
    """What becomes of the spec's phases, up to the end of the run."""
    start, total = 0, whole.total_steps
    before: Plan | None = None
    phases = spec.phases if spec.phases[-1].until is None else (*spec.phases, Phase())
    for number, phase in enumerate(phases, start=1):
        try:
            stop = total if phase.until is None else steps_until(phase.until, whole.steps_per_epoch)
            if stop is not None and stop <= start and phase.until is not None:
                raise SpecError(f"until={phase.until!r} is update {stop}, and the phase begins at update {start}.")
            if total is not None and start >= total > 0:
                return
            stop = stop if total is None or stop is None else min(stop, total)
            there = _resolve_phase(spec, phase, whole, start, stop)
            _check_switch(phase, before, there)
            yield PlanPhase(start, stop, phase, there)
            before = there
        except SpecError as error:
            raise SpecError(f"phase {number}: {error}") from None
        start = stop or 0


def _resolve_phase(spec: Spec, phase: Phase, whole: Plan, start: int, stop: int | None) -> Plan:
    since, length = 0, whole.total_steps
    if phase.counts_from == "phase":
        since, length = start, None if stop is None else stop - start
    there = _resolve_whole(spec.in_phase(phase), whole.parameters, length, whole.steps_per_epoch)
    return replace(there, total_steps=stop, frozen=_frozen_names(phase, whole), since=since, start=start, phase=phase)


def _check_switch(phase: Phase, before: Plan | None, there: Plan) -> None:
    """Refuse what a phase says of a switch of the optimizer that cannot be, or that is none."""
    new = there.spec.optimizer
    is_switch = before is None or type(before.spec.optimizer) is not type(new)
    if before is not None and is_switch:
        for old, group in zip(before.groups, there.groups, strict=True):
            check_carry(old.optimizer, group.optimizer, phase.carry)
    if not phase.momentum_warmup:
        return
    if not is_switch:
        raise SpecError(f"momentum_warmup={phase.momentum_warmup}: the optimizer stays {type(new).__name__}.")
    if not any(getattr(group.optimizer, "momentum", 0.0) for group in there.groups):
        raise SpecError(
            f"momentum_warmup={phase.momentum_warmup}: {type(new).__name__} has no momentum > 0; it is for SGD, LARS "
            "and RMSprop with momentum."
        )


def _frozen_names(phase: Phase, plan: Plan) -> frozenset[str]:
    """The names of the parameters that do not train in a phase."""
    named = phase.trained if phase.frozen is None else phase.frozen
    if named is None:
        return frozenset()
    what = "trained" if phase.frozen is None else "frozen"
    taken = frozenset[str]().union(*(_members(what, item, plan) for item in cast(Which, named)))
    return taken if what == "frozen" else frozenset(p.name for p in plan.parameters) - taken


def _members(what: str, item: str | int, plan: Plan) -> frozenset[str]:
    by_name = {group.name: group.parameters for group in plan.groups}
    if isinstance(item, int):
        if not -len(plan.groups) <= item < len(plan.groups):
            raise SpecError(f"{what}={item}: the plan has {len(plan.groups)} groups: {', '.join(by_name)}.")
        return frozenset(plan.groups[item].parameters)
    return frozenset(by_name[item]) if item in by_name else select_parameters(what, item, plan.parameters)


def _resolve_whole(
    spec: Spec, known: tuple[Parameter, ...], total_steps: int | None, steps_per_epoch: int | None
) -> Plan:
    """The plan of a spec without phases."""
    bound = partial(_bind, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    members = assign([group.rule for group in spec.groups], known)
    free = find_undecayed(spec.no_weight_decay, known)
    groups = [
        PlanGroup(
            name=group.label,
            parameters=tuple(p.name for p in taken),
            elements=sum(p.elements for p in taken),
            optimizer=spec.optimizer_of(group),
            lr_scale=group.lr_scale,
            schedule=bound(group.schedule or spec.schedule or Constant()),
            undecayed=tuple(p.name for p in taken if p.name in free),
        )
        for group, taken in zip(spec.groups, members, strict=False)
    ]
    if rest := members[-1]:
        if any(group.name == REST for group in groups):
            raise SpecError(
                f"a group is called {REST!r}, the name of the group of what no group matches, which is not empty "
                f"({rest[0].name}, …): give it another name=..., or let it match everything that is left with '*'."
            )
        names = tuple(p.name for p in rest)
        elements = sum(p.elements for p in rest)
        schedule = bound(spec.schedule or Constant())
        bare = tuple(name for name in names if name in free)
        groups.append(PlanGroup(REST, names, elements, spec.optimizer, 1.0, schedule, bare))
    for group in groups:
        _check_group(group, steps_per_epoch)
    return Plan(spec, known, tuple(groups), total_steps, steps_per_epoch, tuple(_notes(spec, known, groups)))


def _bind(schedule: Schedule, total_steps: int | None, steps_per_epoch: int | None) -> Schedule:
    """The schedule with the lengths that it leaves out taken from the run's, in its own unit."""
    if total_steps is None or (schedule.unit == "epoch" and steps_per_epoch is None):
        return schedule
    return schedule.bind(total_steps if schedule.unit == "step" else -(-total_steps // (steps_per_epoch or 1)))


def _check_group(group: PlanGroup, steps_per_epoch: int | None) -> None:
    kind = type(group.schedule).__name__
    if group.parameters and group.schedule.unit == "epoch" and steps_per_epoch is None and not group.is_reactive:
        raise SpecError(
            f"group {group.name!r}: {kind}(unit='epoch') counts epochs: "
            "give steps_per_epoch=..., or a schedule with unit='step'."
        )
    if not group.schedule.is_bound:
        raise SpecError(
            f"group {group.name!r}: {kind} leaves out how long the run is: give total_steps=... (of the run, "
            "or in the schedule)."
        )
    if group.schedule.drives_momentum and not group.optimizer.first_momentum:
        raise SpecError(
            f"group {group.name!r}: {kind}(cycle_momentum=True) needs an optimizer with momentum > 0 (or betas[0]). "
            "Set cycle_momentum=False, or a momentum."
        )


def _check_parameters(parameters: Any) -> tuple[Parameter, ...]:
    if framework_of(parameters):
        parameters = [parameter for parameter, _ in parameters_of(parameters)]
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise SpecError(
            f"parameters={parameters!r}: must be a list such as [('features.0.weight', (32, 3, 3, 3))], or a model."
        )
    known: list[Parameter] = []
    seen: set[str] = set()
    for item in parameters:
        parameter = _check_parameter(item)
        for name in parameter.names:
            if name in seen:
                raise SpecError(f"parameters: {name!r} stands twice; every name must be there once.")
            seen.add(name)
        known.append(parameter)
    if not known:
        raise SpecError("there are no parameters: the list, or the model, is empty.")
    return tuple(known)


def _check_parameter(item: Any) -> Parameter:
    try:
        given = tuple(item)
        name, shape, aliases, dtype = given + _UNSAID[len(given) - 2 :]
        parameter = Parameter(name, tuple(map(operator.index, shape)), tuple(aliases), dtype)
        good = min(parameter.shape, default=0) >= 0 and not isinstance(aliases, str) and isinstance(dtype, str)
        if good and all(isinstance(name, str) and name for name in parameter.names):
            return parameter
    except (TypeError, ValueError):
        pass
    shown = " ".join(reprlib.repr(item).split())
    raise SpecError(f"parameters: {shown} is not (name, shape), such as ('fc.weight', (10, 64)).")


def _notes(spec: Spec, parameters: Sequence[Parameter], groups: Sequence[PlanGroup]) -> list[str]:
    owner = {name: group.name for group in groups for name in group.parameters}
    tied = [
        f"{parameter.name} is also {', '.join(parameter.aliases)}: "
        f"tied weights, trained once, in group {owner[parameter.name]!r}"
        for parameter in parameters
        if parameter.aliases
    ]
    unused = [
        f"group {group.label!r}: {pattern!r} matches nothing"
        for group in spec.groups
        for pattern in find_unused_patterns(group.rule, parameters)
    ]
    return tied + unused
