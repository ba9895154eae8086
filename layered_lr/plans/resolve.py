"""How a spec and the parameters of a model become a plan."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.guesses import explain_names, explain_value
from layered_lr.models.heads import describe_words, expand_words
from layered_lr.models.matching import (
    Matcher,
    Rule,
    assign,
    find_undecayed,
    find_unused_patterns,
    select_parameters,
)
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.models.own_depths import describe_parameters
from layered_lr.models.parameter import Parameter
from layered_lr.optimizers import Muon, Optimizer
from layered_lr.optimizers.handover import check_carry
from layered_lr.plans.frozen_by_hand import describe_frozen_by_hand
from layered_lr.plans.group import PlanGroup, describe_kinds
from layered_lr.plans.layers import add_layers, describe_idle_decay
from layered_lr.plans.plan import Plan, PlanPhase
from layered_lr.plans.rest_notes import describe_rest
from layered_lr.plans.rules import list_names, rule_of
from layered_lr.plans.unused_rates import describe_unused_rates
from layered_lr.printed import shown
from layered_lr.schedules import Constant, Schedule
from layered_lr.spec.phases import Phase, Which, steps_until
from layered_lr.spec.spec import Spec
from layered_lr.spelling import find_nearest
from layered_lr.yes_or_no import check_yes_or_no

REST = "rest"
_MOST_NAMES = 8  # of groups, in a message
_DEFAULTS: tuple[Any, ...] = ((), "float32", True, (), None, False)
"""Of a parameter's aliases, dtype, requires_grad, types, depth, answers."""


@explain_names("loop")
def resolve(
    spec: Spec,
    parameters: Module | Sequence[tuple[Any, ...]],
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> Plan:
    """Make the plan of a run: assign every parameter to exactly one group.

    The first group that matches a parameter gets it. Parameters that no group matches go into a last group, ``rest``,
    at the optimizer's ``lr``. A tied parameter (one array with several names) is one parameter; the first group that
    matches any of its names gets it.

    Args:
        spec: The spec, with its groups in priority order.
        parameters: A model of torch or OneFlow, or names and shapes in model order, e.g.
            ``[("features.0.0.weight", (32, 3, 3, 3))]`` (OIHW). Each may have a third item, the tuple of the
            parameter's other names; a fourth, its dtype; a fifth, False where it is frozen by hand
            (``requires_grad=False``); and a sixth, the names of the classes of the module that holds it.
        total_steps: Updates of the whole run. Schedules that need the length of the run take it from here.
        steps_per_epoch: Updates of one epoch. Schedules with ``unit="epoch"`` need it.

    Returns:
        The plan, with its groups in the order of the spec and their parameters in model order.

    Raises:
        SpecError: A group that is not optional gets no parameters, a name is given twice, there are no parameters, or a
            schedule counts epochs and ``steps_per_epoch`` is not given.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("backbone", lr_scale=0.5)])
        >>> plan = ll.resolve(spec, [("backbone.weight", (8, 8)), ("head.weight", (2, 8)), ("head.bias", (2,))])
        >>> {group.name: group.parameters for group in plan.groups}
        {'backbone': ('backbone.weight',), 'rest': ('head.weight', 'head.bias')}
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={shown(spec)}: must be a layered_lr.Spec.{_explain_spec(spec)}")
    if total_steps is not None:
        total_steps = whole_number("total_steps", total_steps, 0)
    if steps_per_epoch is not None:
        steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch, 1)
    known = read_parameters(parameters)
    spec = add_layers(spec, known)
    plan = _resolve_whole(replace(spec, phases=()), known, total_steps, steps_per_epoch)
    if spec.phases:
        phases = tuple(_resolve_phases(spec, plan))
        plan = replace(plan, spec=spec, phases=phases, notes=(*plan.notes, *_notes_of_phases(spec, phases)))
    return replace(plan, notes=(*plan.notes, *describe_unused_rates(plan)))


def plan_from_dict(table: Mapping[str, Any], *, trust: bool = False) -> Plan:
    """Make a plan from the result of ``Plan.to_dict``.

    Args:
        table: The result of ``to_dict``, also if it was saved as JSON and read again.
        trust: Whether functions that it names may be imported, when a rate is computed.

    Raises:
        KeyError: A key is missing.
        SpecError: A value is not allowed.

    Example:
        >>> import layered_lr as ll
        >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1)), [("head.weight", (2, 8))])
        >>> ll.plan_from_dict(plan.to_dict()) == plan
        True
    """
    check_yes_or_no("plan_from_dict", "trust", trust)
    spec = Spec.from_dict(table["spec"], trust=trust)
    return resolve(spec, table["parameters"], table["total_steps"], table["steps_per_epoch"])


def _notes_of_phases(spec: Spec, phases: Sequence[PlanPhase]) -> Iterator[str]:
    """Yield a note if the phases end before or after the run."""
    for number in range(len(phases) + 1, len(spec.phases) + 1):
        yield f"phase {number} never begins: the run ends after {phases[-1].stop} steps"
    if len(phases) > len(spec.phases):
        yield f"phase {len(phases)} is the spec without phases: the last phase of the spec ends before the run"


def _resolve_phases(spec: Spec, whole: Plan) -> Iterator[PlanPhase]:
    """Yield the phases of the plan, up to the end of the run."""
    start, total = 0, whole.total_steps
    before: Plan | None = None
    phases = spec.phases if spec.phases[-1].until is None else (*spec.phases, Phase())
    for number, phase in enumerate(phases, start=1):
        try:
            stop = total if phase.until is None else steps_until(phase.until, whole.steps_per_epoch)
            if stop is not None and stop <= start and phase.until is not None:
                raise SpecError(
                    f"until={phase.until!r} is update {stop}, but the phase begins at update {start}. Give a later "
                    "end: until counts from the start of the run."
                )
            if total is not None and start >= total > 0:
                return
            stop = stop if total is None or stop is None else min(stop, total)
            plan = _resolve_phase(spec, phase, whole, start, stop)
            plan = replace(plan, beginning=_find_beginning(before, plan))
            _check_switch(phase, before, plan)
            yield PlanPhase(start, stop, phase, plan)
            before = plan
        except SpecError as error:
            raise SpecError(f"phase {number}: {error}") from None
        start = stop or 0


def _resolve_phase(spec: Spec, phase: Phase, whole: Plan, start: int, stop: int | None) -> Plan:
    since, length = 0, whole.total_steps
    if phase.counts_from == "phase":
        since, length = start, None if stop is None else stop - start
    plan = _resolve_whole(spec.in_phase(phase), whole.parameters, length, whole.steps_per_epoch)
    return replace(plan, total_steps=stop, frozen=_frozen_names(phase, whole), since=since, start=start, phase=phase)


def _check_switch(phase: Phase, before: Plan | None, plan: Plan) -> None:
    """Check ``carry`` and ``momentum_warmup`` of a phase, which belong to a switch of the optimizer."""
    for old, group in zip(before.groups if before else (), plan.groups, strict=False):
        check_carry(old.optimizer, group.optimizer, phase.carry)
    if not phase.momentum_warmup:
        return
    beginning = [group.optimizer for group in plan.groups if group.name in plan.beginning]
    if not beginning:
        raise SpecError(
            f"momentum_warmup={phase.momentum_warmup}: the optimizer stays {describe_kinds(plan)}. Give "
            "momentum_warmup only where the optimizer changes, or in the first phase."
        )
    if not any(getattr(optimizer, "momentum", 0.0) for optimizer in beginning):
        raise SpecError(
            f"momentum_warmup={phase.momentum_warmup}: {type(beginning[-1]).__name__} has no momentum > 0. Use it with "
            "SGD, LARS, RMSprop or Muon with momentum."
        )


def _find_beginning(before: Plan | None, plan: Plan) -> frozenset[str]:
    """Names of the groups whose optimizer is of another kind than in the phase before."""
    if before is None:
        return frozenset(group.name for group in plan.groups)
    pairs = zip(before.groups, plan.groups, strict=True)
    return frozenset(new.name for old, new in pairs if type(old.optimizer) is not type(new.optimizer))


def _frozen_names(phase: Phase, plan: Plan) -> frozenset[str]:
    """Return the names of the parameters that do not train in a phase."""
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
    if item in by_name:
        return frozenset(by_name[item])
    near = find_nearest(item, by_name)
    first = ", ".join(list(by_name)[:_MOST_NAMES]) + (", …" if len(by_name) > _MOST_NAMES else "")
    advice = f" Did you mean the group {near!r}?" if near else f" The groups are {first}."
    paths = expand_words((item,), plan.parameters)
    return frozenset[str]().union(*(select_parameters(what, path, plan.parameters, advice) for path in paths))


def _resolve_whole(
    spec: Spec, known: tuple[Parameter, ...], total_steps: int | None, steps_per_epoch: int | None
) -> Plan:
    """Make the plan of a spec without phases."""
    bound = partial(_bind, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    rules, matcher = [rule_of(group, known) for group in spec.groups], Matcher(known)
    members = assign(rules, matcher)
    free = find_undecayed(expand_words(spec.no_weight_decay, known), known)
    groups = [
        PlanGroup(
            name=group.label,
            parameters=tuple(p.name for p in taken),
            elements=sum(p.elements for p in taken if p.requires_grad),
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
                f"a group is called {REST!r}, but that is the name of the group for parameters that no group matches, "
                f"such as {rest[0].name}: give your group another name=..., or let it match everything that is left "
                "with '*'."
            )
        names = tuple(p.name for p in rest)
        elements = sum(p.elements for p in rest if p.requires_grad)
        schedule = bound(spec.schedule or Constant())
        bare = tuple(name for name in names if name in free)
        groups.append(PlanGroup(REST, names, elements, spec.optimizer, 1.0, schedule, bare))
    for group, taken in zip(groups, members, strict=False):
        _check_group(group, steps_per_epoch)
        _check_matrices(group, taken)
    return Plan(spec, known, tuple(groups), total_steps, steps_per_epoch, tuple(_notes(spec, rules, matcher, groups)))


def _bind(schedule: Schedule, total_steps: int | None, steps_per_epoch: int | None) -> Schedule:
    """Return the schedule with its missing lengths taken from the run, in its own unit."""
    if total_steps is None or (schedule.unit == "epoch" and steps_per_epoch is None):
        return schedule
    return schedule.bind(total_steps if schedule.unit == "step" else -(-total_steps // (steps_per_epoch or 1)))


def _check_group(group: PlanGroup, steps_per_epoch: int | None) -> None:
    kind = type(group.schedule).__name__
    if group.parameters and group.schedule.unit == "epoch" and steps_per_epoch is None and not group.is_reactive:
        raise SpecError(
            f"group {group.name!r}: {kind}(unit='epoch') counts epochs: "
            "give steps_per_epoch=..., or use a schedule with unit='step'."
        )
    if not group.schedule.is_bound:
        raise SpecError(
            f"group {group.name!r}: {kind} needs the length of the run: give total_steps=... to the run or to the "
            "schedule."
        )
    if group.schedule.drives_momentum and not group.optimizer.first_momentum:
        raise SpecError(
            f"group {group.name!r}: {kind}(cycle_momentum=True) needs an optimizer with momentum > 0 (or betas[0] > 0)."
            " Set cycle_momentum=False, or give the optimizer a momentum."
        )


def _check_matrices(group: PlanGroup, parameters: Sequence[Parameter]) -> None:
    """Refuse Muon for what is no matrix."""
    optimizer = group.optimizer
    if not isinstance(optimizer, Muon):
        return
    odd = [
        parameter
        for parameter in parameters
        if parameter.requires_grad
        and not (len(parameter.shape) == 2 or (optimizer.flatten and len(parameter.shape) > 2))
    ]
    if not odd:
        return
    first, more = odd[0], f" and {len(odd) - 1} more" if len(odd) > 1 else ""
    flatten = ", or take it as a matrix with Muon(flatten=True)" if len(first.shape) > 2 else ""
    raise SpecError(
        f"group {group.name!r}: Muon takes matrices only, but {first.name!r}{more} in this group "
        f"{'are' if more else 'is'} none; its shape is {first.shape}. Let an earlier group with another optimizer "
        f"match it, such as Group({first.name!r}, optimizer=AdamW()), or let Muon's group match the matrices only"
        f"{flatten}."
    )


def _explain_spec(given: object) -> str:
    """What to give instead of something that is no spec."""
    if isinstance(given, Optimizer):
        return f" Put the optimizer into one: ll.Spec({type(given).__name__}(...))."
    if framework_of(given):
        return " This is a model: the spec comes first."
    if isinstance(getattr(given, "spec", None), Spec):  # a recipe, a plan
        return " Give its spec: .spec"
    if isinstance(given, str | Path):
        return " A recipe is read first: ll.load_recipe('head-first').spec, or ll.Spec.from_toml(path)."
    if isinstance(given, Mapping):
        return " Make one of a table with ll.Spec.from_dict(table)."
    if isinstance(given, type) and issubclass(given, Spec | Optimizer):
        return f" {given.__name__} is a class: give an object of it."
    return explain_value(given, "spec", ["Spec"])


def _explain_parameters(given: object) -> str:
    """What to give instead of something that is neither a model nor a list of names and shapes."""
    if isinstance(given, Spec):
        return " This is a spec, which comes first."
    if isinstance(given, type):
        return f" {given.__name__} is a class: give an object of it, {given.__name__}(...)."
    if isinstance(given, Mapping):
        return " Of a state_dict() give [(name, tuple(tensor.shape)) for name, tensor in state.items()]."
    if isinstance(given, Iterator):
        return " Give the model itself, not model.parameters() or model.named_parameters()."
    return ""


def read_parameters(parameters: Module | Sequence[tuple[Any, ...]]) -> tuple[Parameter, ...]:
    """Return a model's parameters, or those of a list of names and shapes, checked.

    Raises:
        SpecError: Neither of them, a name is given twice, or there are none.
    """
    if framework_of(parameters):
        parameters = describe_parameters(parameters)
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise SpecError(
            f"parameters={shown(parameters)}: must be a list such as [('features.0.weight', (32, 3, 3, 3))], or a "
            f"model.{_explain_parameters(parameters)}"
        )
    known: list[Parameter] = []
    seen: set[str] = set()
    for item in parameters:
        parameter = _check_parameter(item)
        for name in parameter.names:
            if name in seen:
                raise SpecError(f"parameters: {name!r} is given twice; give every name once.")
            seen.add(name)
        known.append(parameter)
    if not known:
        raise SpecError("there are no parameters: the list or the model is empty. Give at least one parameter.")
    return tuple(known)


def _check_parameter(item: Any) -> Parameter:
    try:
        given = tuple(item)
        name, shape, aliases, dtype, requires_grad, types, depth, answers = given + _DEFAULTS[len(given) - 2 :]
        lengths = tuple(map(operator.index, shape))
        parameter = Parameter(name, lengths, tuple(aliases), dtype, requires_grad, tuple(types), depth, answers)
        good = min(parameter.shape, default=0) >= 0 and not isinstance(aliases, str) and isinstance(dtype, str)
        good = good and isinstance(requires_grad, bool) and isinstance(answers, bool) and not isinstance(types, str)
        good = good and all(isinstance(name, str) for name in parameter.types)
        good = good and (depth is None or (type(depth) is int and depth >= 0))
        if good and all(isinstance(name, str) and name for name in parameter.names):
            return parameter
    except (TypeError, ValueError):
        pass
    raise SpecError(f"parameters: {shown(item)} is not (name, shape), such as ('fc.weight', (10, 64)).")


def _notes(spec: Spec, rules: Sequence[Rule], matcher: Matcher, groups: Sequence[PlanGroup]) -> list[str]:
    parameters = matcher.parameters
    owner = {name: group.name for group in groups for name in group.parameters}
    tied = [
        f"{parameter.name} is also {', '.join(parameter.aliases)}: "
        f"tied weights, trained once, in group {owner[parameter.name]!r}"
        for parameter in parameters
        if parameter.aliases
    ]
    unused = [
        f"group {rule.name!r}: {pattern!r} matches nothing"
        for rule in rules
        for pattern in find_unused_patterns(rule, matcher)
    ]
    rest = [note for group in groups if group.name == REST for note in describe_rest(group, groups, parameters)]
    words = describe_words(list_names(spec.groups), parameters)
    idle = list(describe_idle_decay(spec))
    return words + tied + unused + rest + idle + list(describe_frozen_by_hand(groups, parameters))
