"""The scheduler of an optimizer that exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from layered_lr.models.nn_modules import parameters_of, plain_name
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.param_groups import list_param_groups, list_parts, match_param_groups
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr.spec.spec import Spec
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.finishing import attach_clipper, find_clipper, is_finished
from layered_lr_torch.mixed_optimizer import KIND, MixedOptimizer
from layered_lr_torch.omitted_parameters import watch_omitted
from layered_lr_torch.optimizer import find_classes, make_arguments
from layered_lr_torch.own_loop_phases import PhaseScheduler
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module, Tensor


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
    by_hand = find_frozen_by_hand(plan.parameters)
    listed = list_param_groups(plan, model, bool(spec.phases), by_hand, KIND)
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
    parts = list(list_parts(plan))
    tensors = _find_tensors(optimizer, model)
    by_hand = find_frozen_by_hand(plan.parameters)
    members = [(group.get("name", ""), group["params"]) for group in optimizer.param_groups]
    places = match_param_groups(members, [(plan.groups[column].name, part) for column, part in parts], tensors, by_hand)
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


def _find_tensors(optimizer: torch.optim.Optimizer, model: Module | None) -> Mapping[str, Tensor]:
    if model is not None:
        return {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    return {
        plain_name(name): tensor
        for group in optimizer.param_groups
        for name, tensor in zip(group["param_names"], group["params"], strict=True)
    }
