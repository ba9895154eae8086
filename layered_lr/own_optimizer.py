"""Uses a spec with an optimizer of the user's own: makes its param groups, and later its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from layered_lr.backend.base import LoopOptimizer, LoopScheduler
from layered_lr.backend.loading import backend_of, load_backend
from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import Module
from layered_lr.plans.float32_range import check_range
from layered_lr.plans.resolve import resolve
from layered_lr.registry import FRAMEWORKS
from layered_lr.spec.spec import Spec


def param_groups(spec: Spec, model: Module) -> list[dict[str, Any]]:
    """Make the param groups of a spec, for an optimizer of any class: torch's, timm's, one of 8 bits, or your own.

    The length of the run need not be known yet: ``scheduler`` sets the rates.

    Args:
        spec: Groups and optimizer. The kind of the optimizer only says which hyperparameters there are.
        model: A ``torch.nn.Module`` or a ``oneflow.nn.Module``.

    Returns:
        For each group of the spec a dict with ``params``, ``param_names``, ``name``, ``lr`` (the group's own rate,
        multiplied by ``lr_scale``) and the hyperparameters. A group in which only some parameters decay is two.

    Raises:
        SpecError: The spec does not fit the model, or the model is not an ``nn.Module``.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("0", lr_scale=0.5)])
        >>> optimizer = torch.optim.SGD(ll.param_groups(spec, model))
        >>> [(group["name"], group["lr"], group["param_names"]) for group in optimizer.param_groups]
        [('0', 0.05, ['0.weight', '0.bias']), ('rest', 0.1, ['1.weight', '1.bias'])]
    """
    backend = backend_of(model)
    bare = replace(spec, schedule=None, groups=[replace(group, schedule=None) for group in spec.groups], phases=())
    plan = resolve(bare, model)
    check_range(plan)
    return backend.list_param_groups(plan, model, divides_always=bool(spec.phases))


def scheduler(
    spec: Spec,
    optimizer: LoopOptimizer,
    model: Module | None = None,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> LoopScheduler:
    """Make the scheduler of a spec for an optimizer that exists, such as one from ``param_groups``.

    Args:
        spec: Groups and schedules.
        optimizer: A ``torch.optim.Optimizer`` of any class, or a ``oneflow.optim.Optimizer`` in eager mode. Each of its
            param groups must be inside one group of the spec. If the spec clips gradients, the optimizer does so
            from now on.
        model: What it trains. None is enough where the optimizer has the names of its parameters (``param_names``), and
            the spec has no phases and does not clip.
        total_steps: Updates of the whole run, if a schedule needs it.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.

    Returns:
        The scheduler that ``compile`` gives: call its ``step()`` after every update.

    Raises:
        SpecError: The spec does not fit the model or the optimizer, or the model is needed.
        Unsupported: A phase switches the optimizer, or the spec has phases and the optimizer is one of OneFlow's that
            counts the updates of all parameters together.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("0", lr_scale=0.5)], schedule=ll.CosineDecay())
        >>> optimizer = torch.optim.SGD(ll.param_groups(spec, model))
        >>> scheduler = ll.scheduler(spec, optimizer, total_steps=100)
        >>> optimizer.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr() == scheduler.plan.rates(1)
        True
    """
    backend = load_backend(FRAMEWORKS[_framework_of_optimizer(optimizer)].loop) if model is None else backend_of(model)
    parameters = _list_parameters(spec, optimizer) if model is None else model
    plan = resolve(spec, parameters, total_steps, steps_per_epoch)
    check_range(plan)
    return backend.build_scheduler(plan, optimizer, model)


def _framework_of_optimizer(optimizer: LoopOptimizer) -> str:
    for base in type(optimizer).__mro__:
        root = base.__module__.split(".")[0]
        if base.__name__ == "Optimizer" and root in FRAMEWORKS:
            return root
    raise SpecError(f"optimizer is a {type(optimizer).__name__}; must be an optimizer of torch or OneFlow.")


def _list_parameters(spec: Spec, optimizer: LoopOptimizer) -> Sequence[tuple[Any, ...]]:
    """The parameters of an optimizer that has their names."""
    groups = [_read_members(group) for group in optimizer.param_groups]
    if any(len(names) != len(tensors) for names, tensors in groups):
        raise SpecError(
            "scheduler: the optimizer has no names of its parameters. Give model=..., or make the optimizer from "
            "ll.param_groups(spec, model)."
        )
    if spec.phases or spec.clip_grad_norm is not None or spec.clip_grad_value is not None:
        raise SpecError("scheduler: a spec with phases or clipping needs the model. Give model=....")
    return [
        (name, tuple(tensor.shape), (), str(tensor.dtype).rpartition(".")[2], bool(tensor.requires_grad))
        for names, tensors in groups
        for name, tensor in zip(names, tensors, strict=True)
    ]


def _read_members(group: Any) -> tuple[Sequence[str], Sequence[Any]]:
    """The names and the parameters of a param group: a dict in torch, an object in OneFlow."""
    if isinstance(group, dict):
        return group.get("param_names", ()), group["params"]
    return group.options.get("param_names", ()), group.parameters
