"""The scheduler of an eager optimizer that exists."""

from __future__ import annotations

from typing import Any, Final

from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.param_groups import list_parts, match_param_groups
from layered_lr.plans.plan import Plan
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr_oneflow.clipping import GradientClipper, call_before_step
from layered_lr_oneflow.composed_optimizer import ComposedOptimizer
from layered_lr_oneflow.oneflow_types import Module
from layered_lr_oneflow.optimizer import EagerScale, PlanScheduler
from layered_lr_oneflow.own_loop_phases import PhaseScheduler
from layered_lr_oneflow.runtime import flow

_CLIPPER: Final = "_layered_lr_clipper"  # an attribute of the optimizer
_COUNT_EACH: Final = ("SGD", "RMSprop", "Adadelta")  # OneFlow's, whose update does not depend on a count


def build_scheduler(plan: Plan, optimizer: Any, model: Module | None) -> PlanScheduler:
    """Make the scheduler of an eager optimizer that exists.

    OneFlow ignores ``lr_scale`` in eager mode, so the rates are already multiplied by it. A Graph that is given the
    optimizer is refused when it is compiled: it would train at the first rates forever.

    Args:
        plan: Of the same parameters.
        optimizer: OneFlow's, of any class.
        model: What it trains; None only where the plan has no phases and does not clip.

    Raises:
        SpecError: This is no optimizer of OneFlow, it is of ``ll.compile``, or a param group is in no group of the
            plan, or in several.
        Unsupported: The plan has phases, and OneFlow's optimizer has one count of updates for all parameters.
    """
    if not isinstance(optimizer, flow.optim.Optimizer):
        hint = " For a graph, call ll.attach in its __init__." if isinstance(optimizer, flow.nn.Graph) else ""
        raise SpecError(
            f"optimizer is a {type(optimizer).__name__}; must be a oneflow.optim.Optimizer of the model.{hint}"
        )
    if isinstance(optimizer, ComposedOptimizer):
        raise SpecError("scheduler: this optimizer is from ll.compile, which has made its scheduler too: use that one.")
    check_single_optimizer(plan)
    parts = list(list_parts(plan))
    tensors = {} if model is None else {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    members = []
    for group in optimizer.param_groups:
        members.append((group.options.get("name", ""), group.parameters))
        if model is None:
            tensors |= dict(zip(group["param_names"], group.parameters, strict=True))
    places = match_param_groups(members, [(plan.groups[column].name, part) for column, part in parts], tensors)
    owners = [parts[place][0] for place in places]
    if plan.phases:
        _check_counts(optimizer)
    for group, owner in zip(optimizer.param_groups, owners, strict=True):
        group["initial_lr"] = plan.groups[owner].lr_scale * plan.groups[owner].lr
        group["lr_scale"] = EagerScale(1.0)
    if model is None:
        return PlanScheduler(optimizer, plan, owners, rounds=False)
    clipper = _attach_clipper(plan, optimizer, model)
    if plan.phases:
        return PhaseScheduler(optimizer, plan, model, clipper, owners, places)
    return PlanScheduler(optimizer, plan, owners, rounds=False)


def _attach_clipper(plan: Plan, optimizer: Any, model: Module) -> GradientClipper:
    """Let the optimizer clip as the plan says; one that clips already, by an earlier scheduler, does so anew."""
    clipper: GradientClipper | None = vars(optimizer).get(_CLIPPER)
    if clipper is not None:
        clipper.begin(plan.plan_at(0), model)
        return clipper
    clipper = GradientClipper(plan.plan_at(0), model)
    if any(part.spec.clip_grad_norm or part.spec.clip_grad_value for part in plan.phase_plans):
        call_before_step(optimizer, clipper.clip)
        vars(optimizer)[_CLIPPER] = clipper
    return clipper


def _check_counts(optimizer: Any) -> None:
    """Refuse OneFlow's optimizers of which a parameter that begins to train late would take too small steps.

    Raises:
        Unsupported: It is one of them.
    """
    cls = type(optimizer)
    if cls.__module__.split(".")[0] != "oneflow" or cls.__name__ in _COUNT_EACH:
        return
    if cls.__name__ == "Adagrad" and not any(group["lr_decay"] for group in optimizer.param_groups):
        return
    raise Unsupported(
        f"scheduler: oneflow.optim.{cls.__name__} has one count of updates for all parameters, so one that a phase "
        "thaws late would be updated as if it had trained from the start. Use ll.compile, whose optimizer counts for "
        "each parameter, or oneflow.optim.SGD."
    )
