"""Param groups for an optimizer of the user's, and the scheduler of an optimizer that exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of, plain_name
from layered_lr.optimizers import Optimizer
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.group import Part, describe_kinds, list_kinds
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr.spec.spec import Spec
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.finishing import attach_clipper, find_clipper, is_finished
from layered_lr_torch.mixed_optimizer import KIND, MixedOptimizer
from layered_lr_torch.omitted_parameters import watch_omitted
from layered_lr_torch.optimizer import NO_DECAY, divide_group, find_classes, make_arguments
from layered_lr_torch.own_loop_phases import PhaseScheduler
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module, ParamGroup, Tensor

_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable"})  # the optimizer's own business


def list_param_groups(plan: Plan, model: Module, divides_always: bool, is_mix: bool = False) -> list[ParamGroup]:
    """Make param groups at the groups' own rates, with names, for an optimizer of any class.

    Args:
        plan: Without phases.
        model: Whose parameters they have.
        divides_always: Whether parameters that never decay stand apart even where nothing decays: a phase may change
            that.
        is_mix: Whether they are for a ``MixedOptimizer``, if the groups have optimizers of several kinds.

    Raises:
        Unsupported: They are not, but the groups have optimizers of several kinds.
    """
    kinds = list_kinds(plan)
    if len(kinds) > 1 and not is_mix:
        raise Unsupported(
            f"param_groups: the groups have optimizers of several kinds ({describe_kinds(plan)}), but param groups go "
            "to one optimizer, which would update all of them in its own way. Use ll.compile, which makes an optimizer "
            "of several kinds."
        )
    by_hand = find_frozen_by_hand(plan.parameters)
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
                    **_list_hyperparameters(part.optimizer),
                    **({KIND: type(part.optimizer).__name__} if len(kinds) > 1 and training else {}),
                    "params": [tensors[name] for name in training],
                    "param_names": training,
                    "name": group.name + (NO_DECAY if index else ""),
                    "lr": group.lr_scale * group.lr,
                }
            )
    return found


def build_bare_optimizer(spec: Spec, model: Module) -> torch.optim.Optimizer:
    """Make the optimizer of a spec for a trainer that makes the scheduler later: it clips nothing and has no hooks.

    Args:
        spec: Groups and optimizers.
        model: Whose parameters it has.

    Raises:
        SpecError: The spec does not fit the model.
        Unsupported: This release of torch lacks an optimizer, or an option of it.
    """
    groups = [replace(group, schedule=None) for group in spec.groups]
    plan = resolve(replace(spec, schedule=None, groups=groups, phases=()), model)
    classes = find_classes(plan)
    listed = list_param_groups(plan, model, divides_always=bool(spec.phases), is_mix=True)
    if len(classes) == 1:
        ((cls, _),) = classes.values()
        optimizer: torch.optim.Optimizer = cls(listed)
        return optimizer
    return MixedOptimizer(listed, {kind: (cls, make_arguments(cls, own, {})) for kind, (cls, own) in classes.items()})


def build_scheduler(plan: Plan, optimizer: torch.optim.Optimizer, model: Module | None) -> PlanScheduler:
    """Make the scheduler of an optimizer that exists.

    Args:
        plan: Of the same parameters.
        optimizer: Of any class; one that a trainer has wrapped is unwrapped.
        model: What it trains; None only where the plan has no phases and does not clip.

    Raises:
        SpecError: A param group is in no group of the plan, or in several.
    """
    check_single_optimizer(plan)
    optimizer = innermost(optimizer)
    parts = list(_list_parts(plan))
    tensors = _find_tensors(optimizer, model)
    by_hand = find_frozen_by_hand(plan.parameters)
    places = _match(optimizer, [(plan.groups[column].name, part) for column, part in parts], tensors, by_hand)
    owners = [parts[place][0] for place in places]
    for group, owner in zip(optimizer.param_groups, owners, strict=True):
        group["initial_lr"] = plan.groups[owner].lr_scale * plan.groups[owner].lr
    if model is None:
        return PlanScheduler(optimizer, plan, owners=owners, watches=True)
    if not is_finished(optimizer):
        known = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        watch_omitted(optimizer, [(name, tensors[name]) for name in by_hand if id(tensors[name]) not in known])
    clipper = find_clipper(optimizer)
    if clipper is None:
        clipper = GradientClipper(plan.plan_at(0), model)
        if any(part.spec.clip_grad_norm or part.spec.clip_grad_value for part in plan.phase_plans):
            attach_clipper(optimizer, clipper)
    else:  # of an earlier scheduler, perhaps with another spec
        clipper.begin(plan.plan_at(0), model)
    if plan.phases:
        return PhaseScheduler(optimizer, plan, model, clipper, None if is_finished(optimizer) else places)
    return PlanScheduler(optimizer, plan, owners=owners, watches=True)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer inside of those that accelerate, Lightning and others put around it.

    A wrapper leaves out ``Optimizer.__init__``, so hooks cannot be registered at it.
    """
    inner = getattr(optimizer, "optimizer", None)
    return innermost(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer


def _list_hyperparameters(optimizer: Optimizer) -> dict[str, Any]:
    return {name: value for name, value in asdict(optimizer).items() if name not in _IMPLEMENTATION}


def _list_parts(plan: Plan) -> Iterator[tuple[int, Part]]:
    for column, group in enumerate(plan.groups):
        yield from ((column, part) for part in divide_group(plan, group, column))


def _find_tensors(optimizer: torch.optim.Optimizer, model: Module | None) -> Mapping[str, Tensor]:
    if model is not None:
        return {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    return {
        plain_name(name): tensor
        for group in optimizer.param_groups
        for name, tensor in zip(group["param_names"], group["params"], strict=True)
    }


def _match(
    optimizer: torch.optim.Optimizer,
    parts: list[tuple[str, Part]],
    tensors: Mapping[str, Tensor],
    by_hand: frozenset[str],
) -> list[int]:
    """Find for each param group the index of the part that has all of its parameters."""
    place_of = {id(tensors[name]): place for place, (_, part) in enumerate(parts) for name in part.parameters}
    name_of = {id(tensor): name for name, tensor in tensors.items()}
    by_name: dict[str, int] = {}  # of parts of which no parameter is in the optimizer
    for place, (name, part) in enumerate(parts):
        is_second = place > 0 and parts[place - 1][0] == name
        if by_hand.issuperset(part.parameters):
            by_name[name + NO_DECAY * is_second] = place
    found = []
    for number, group in enumerate(optimizer.param_groups):
        places = {place_of.get(id(tensor), -1) for tensor in group["params"]}
        if not places:  # of an optional group that matches nothing, or whose parameters are frozen by hand
            places = {by_name.get(group.get("name", ""), -1)}
        if -1 in places:
            raise SpecError(
                f"optimizer: its param group {number} has parameters that are not the model's, or none. Make it from "
                "ll.param_groups(spec, model), for the same model."
            )
        if len(places) > 1:
            names = sorted({parts[place][0] for place in places})
            example = name_of[id(group["params"][0])]
            raise SpecError(
                f"optimizer: its param group {number} ({example!r}, …) is in several groups of the spec "
                f"({', '.join(map(repr, names))}), or only some of its parameters decay. Make the optimizer from "
                "ll.param_groups(spec, model)."
            )
        found.append(places.pop())
    return found
