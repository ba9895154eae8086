"""Param groups of a plan, for optimizers that somebody else makes, and how such groups are found again in the plan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import Module, Tensor, parameters_of
from layered_lr.optimizers import Optimizer
from layered_lr.plans.group import Part, PlanGroup, describe_kinds, list_kinds
from layered_lr.plans.plan import Plan

NO_DECAY: Final = " (no weight decay)"
"""Ends the name of the second param group of a group in which only some parameters decay."""

_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable"})  # the optimizer's own business


def divide_group(plan: Plan, group: PlanGroup, column: int) -> tuple[Part, ...]:
    """Return the parts of a group of one phase: two, if it has two in any phase of the plan.

    Args:
        plan: With all phases.
        group: Of one of them.
        column: Its index.
    """
    most = max(len(part.groups[column].parts) for part in plan.phase_plans)
    if len(group.parts) == most:
        return group.parts
    free = set(group.undecayed)
    decayed = tuple(name for name in group.parameters if name not in free)
    return Part(decayed, group.optimizer), Part(group.undecayed, replace(group.optimizer, weight_decay=0.0))


def find_owners(plan: Plan) -> list[int]:
    """Return for each param group of ``build_param_groups`` the index of its group in the plan."""
    return [column for column, group in enumerate(plan.groups) for _ in divide_group(plan, group, column)]


def list_param_groups(
    plan: Plan, model: Module, divides_always: bool, by_hand: Collection[str], kind_key: str | None = None
) -> list[dict[str, Any]]:
    """Make param groups at the groups' own rates, with names, for an optimizer of any class.

    Args:
        plan: Without phases.
        model: Whose parameters they have.
        divides_always: Whether parameters that never decay stand apart even where nothing decays: a phase may change
            that.
        by_hand: Names of parameters to leave out.
        kind_key: Under which a param group names the kind of its optimizer, if there are several; None refuses several.

    Raises:
        Unsupported: The groups have optimizers of several kinds, and one optimizer is to take them.
    """
    kinds = list_kinds(plan)
    if len(kinds) > 1 and kind_key is None:
        raise Unsupported(
            f"param_groups: the groups have optimizers of several kinds ({describe_kinds(plan)}), but param groups go "
            "to one optimizer, which would update all of them in its own way. Use ll.compile, which makes an optimizer "
            "of several kinds."
        )
    tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    found = []
    for group in plan.groups:
        parts = group.parts
        if divides_always and len(parts) == 1 and 0 < len(group.undecayed) < len(group.parameters):
            free = set(group.undecayed)
            decayed = tuple(name for name in group.parameters if name not in free)
            parts = (Part(decayed, group.optimizer), Part(group.undecayed, group.optimizer))
        for index, part in enumerate(parts):
            training = [name for name in part.parameters if name not in by_hand]
            found.append(
                {
                    **list_hyperparameters(part.optimizer),
                    **({kind_key: type(part.optimizer).__name__} if kind_key and len(kinds) > 1 and training else {}),
                    "params": [tensors[name] for name in training],
                    "param_names": training,
                    "name": group.name + (NO_DECAY if index else ""),
                    "lr": group.lr_scale * group.lr,
                }
            )
    return found


def list_hyperparameters(optimizer: Optimizer) -> dict[str, Any]:
    """List an optimizer's hyperparameters, without those that choose one of torch's implementations."""
    return {name: value for name, value in asdict(optimizer).items() if name not in _IMPLEMENTATION}


def list_parts(plan: Plan, here: Plan | None = None) -> Iterator[tuple[int, Part]]:
    """Yield every part of every group, with the index of the group.

    Args:
        plan: With all phases.
        here: Of one of them; None is the plan itself.
    """
    for column, group in enumerate((here or plan).groups):
        yield from ((column, part) for part in divide_group(plan, group, column))


def match_param_groups(
    groups: Sequence[tuple[str, Sequence[Tensor]]],
    parts: list[tuple[str, Part]],
    tensors: Mapping[str, Tensor],
    by_hand: frozenset[str] = frozenset(),
) -> list[int]:
    """Find for each param group the index of the part that has all of its parameters.

    Args:
        groups: The name of each param group, or "", and its parameters.
        parts: Of the plan, each with the name of its group.
        tensors: The model's parameters by name.
        by_hand: Names of those that are frozen by hand, which need not be in any param group.

    Raises:
        SpecError: A param group is in no part of the plan, or in several.
    """
    place_of = {id(tensors[name]): place for place, (_, part) in enumerate(parts) for name in part.parameters}
    name_of = {id(tensor): name for name, tensor in tensors.items()}
    by_name: dict[str, int] = {}  # of parts of which no parameter is in the optimizer
    for place, (own, part) in enumerate(parts):
        is_second = place > 0 and parts[place - 1][0] == own
        if by_hand.issuperset(part.parameters):
            by_name[own + NO_DECAY * is_second] = place
    found = []
    for number, (name, members) in enumerate(groups):
        places = {place_of.get(id(tensor), -1) for tensor in members}
        if not places:  # of an optional group that matches nothing, or whose parameters are frozen by hand
            places = {by_name.get(name, -1)}
        if -1 in places:
            raise SpecError(
                f"optimizer: its param group {number} has parameters that are not the model's, or none. Make it from "
                "ll.param_groups(spec, model), for the same model."
            )
        if len(places) > 1:
            names = sorted({parts[place][0] for place in places})
            example = name_of[id(members[0])]
            raise SpecError(
                f"optimizer: its param group {number} ({example!r}, …) is in several groups of the spec "
                f"({', '.join(map(repr, names))}), or only some of its parameters decay. Make the optimizer from "
                "ll.param_groups(spec, model)."
            )
        found.append(places.pop())
    return found
