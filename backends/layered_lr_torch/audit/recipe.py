"""A recipe as an audit sees it: optimizers, models and schedulers, with names for everything."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import list_modules, parameters_of
from layered_lr.models.parameter import Parameter
from layered_lr_torch.own_optimizer import innermost
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module, ParamGroup, Tensor


class ListedGroup(NamedTuple):
    """A param group of one of the optimizers.

    Args:
        label: Its ``name``, or its number.
        options: The param group itself; an audit only reads it.
        optimizer: Whose it is.
    """

    label: str
    options: ParamGroup
    optimizer: torch.optim.Optimizer

    @property
    def rate(self) -> float:
        """The rate at present."""
        return read_rate(self.options)

    @property
    def base_rate(self) -> float:
        """The rate that schedulers begin with."""
        return read_rate(self.options, "initial_lr" if "initial_lr" in self.options else "lr")


@dataclass(frozen=True)
class AuditedRecipe:
    """Everything that was given, and what follows from it.

    Args:
        optimizers: Without the wrappers of trainers.
        models: One or several.
        schedulers: Of any class, or functions.
        steps: How often the schedulers are stepped in the run, if it is known.
    """

    optimizers: Sequence[torch.optim.Optimizer]
    models: Sequence[Module]
    schedulers: Sequence[Any]
    steps: int | None

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter of the models by name; the names of several models begin with the model's number."""
        return {
            prefix + parameter.name: tensor
            for prefix, model in self._prefixed
            for parameter, tensor in parameters_of(model)
        }

    @cached_property
    def parameters(self) -> Mapping[int, Parameter]:
        """Every parameter of the models as the library describes it, by the tensor's id."""
        return {id(tensor): parameter for model in self.models for parameter, tensor in parameters_of(model)}

    @cached_property
    def names(self) -> Mapping[int, str]:
        """The first name of each parameter, by the tensor's id."""
        found: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            found.setdefault(id(tensor), name)
        return found

    @cached_property
    def modules(self) -> Sequence[tuple[str, Module]]:
        """Every module with the prefix of its tensors' names."""
        return [each for prefix, model in self._prefixed for each in list_modules(model, prefix)]

    @cached_property
    def groups(self) -> Sequence[ListedGroup]:
        """The param groups of all optimizers."""
        many = len(self.optimizers) > 1
        return [
            ListedGroup(
                (f"optimizer {place}, " if many else "") + str(options.get("name") or f"group {number}"),
                options,
                optimizer,
            )
            for place, optimizer in enumerate(self.optimizers)
            for number, options in enumerate(optimizer.param_groups)
        ]

    @cached_property
    def groups_of(self) -> Mapping[int, Sequence[ListedGroup]]:
        """The groups that have each parameter, by the tensor's id; a group that has it twice is there twice."""
        found: dict[int, list[ListedGroup]] = {}
        for group in self.groups:
            for tensor in group.options["params"]:
                found.setdefault(id(tensor), []).append(group)
        return found

    @cached_property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters that have no gradient, now or after ``model.train()``."""
        return frozenset(
            name
            for name, tensor in self.tensors.items()
            if not tensor.requires_grad or not self.in_training.get(name, tensor).requires_grad
        )

    @cached_property
    def frozen_by_plan(self) -> frozenset[str]:
        """Names of the parameters that a plan of this library freezes in one of its phases."""
        plans = [each.plan for each in self.schedulers if isinstance(each, PlanScheduler)]
        return frozenset().union(*(phase.frozen for plan in plans for phase in plan.phase_plans))

    @cached_property
    def in_training(self) -> Mapping[str, Tensor]:
        """The parameters of the copy, by name; empty where the model cannot be copied."""
        return {
            prefix + parameter.name: tensor
            for (prefix, _), made in zip(self._prefixed, self.copies, strict=True)
            if made is not None
            for parameter, tensor in parameters_of(made)
        }

    @cached_property
    def copies(self) -> Sequence[Module | None]:
        """A copy of each model after ``train()``, which shares the numbers with the model; None where that fails."""
        return [_copy_in_training(model) for model in self.models]

    def name_of(self, tensor: Tensor) -> str:
        """The name of a parameter, or its shape where it is not the models'."""
        return self.names.get(id(tensor), f"a parameter of shape {tuple(tensor.shape)}")

    def in_order(self, names: set[str]) -> tuple[str, ...]:
        """Some names in the order of the models; unknown ones last."""
        return (*(name for name in self.tensors if name in names), *sorted(names - self.tensors.keys()))

    @property
    def _prefixed(self) -> Iterator[tuple[str, Module]]:
        many = len(self.models) > 1
        for number, model in enumerate(self.models):
            yield f"{number}." if many else "", model


def read_recipe(
    optimizers: Sequence[object], models: Sequence[Module], schedulers: Sequence[object], steps: int | None
) -> AuditedRecipe:
    """Check what was given, and take wrappers of trainers off.

    Raises:
        SpecError: An optimizer or a scheduler is of another kind.
    """
    bare: list[torch.optim.Optimizer] = []
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Optimizer):
            hint = " Give an object of it." if isinstance(optimizer, type) else ""
            what = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else f"a {type(optimizer).__name__}"
            raise SpecError(f"audit: optimizer is {what}; must be a torch.optim.Optimizer.{hint}")
        if (inner := innermost(optimizer)) not in bare:
            bare.append(inner)
    return AuditedRecipe(bare, models, [_unwrap(each) for each in schedulers], steps)


def read_rate(options: ParamGroup, name: str = "lr") -> float:
    """The rate of a param group; 0 where the optimizer finds its own, as transformers' ``Adafactor(lr=None)``."""
    rate = options.get(name)
    return 0.0 if rate is None else float(rate)


def is_torch_scheduler(scheduler: object) -> bool:
    """Whether a scheduler is one of torch, or derived from one."""
    return isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau)


def is_function(scheduler: object) -> bool:
    """Whether a scheduler is a function of an optimizer and a step."""
    return callable(scheduler) and not hasattr(scheduler, "optimizer")


def count_made(scheduler: object) -> int:
    """How many steps a scheduler has made; a function counts none."""
    return 0 if is_function(scheduler) else int(getattr(scheduler, "last_epoch", 0) or 0)


def list_parts(scheduler: Any) -> list[Any]:
    """A scheduler and all those inside of it; timm's for a plateau has torch's inside."""
    inside = [*getattr(scheduler, "_schedulers", ()), getattr(scheduler, "lr_scheduler", None)]
    return [scheduler, *(part for inner in inside if inner is not None for part in list_parts(inner))]


def _unwrap(scheduler: Any) -> Any:
    """Return the scheduler inside of accelerate's or Ignite's; refuse what is none."""
    inner = getattr(scheduler, "scheduler", None)
    if inner is not None and is_torch_scheduler(inner):
        return inner
    if is_torch_scheduler(scheduler) or (not isinstance(scheduler, type) and is_function(scheduler)):
        return scheduler
    if hasattr(scheduler, "optimizer") and callable(getattr(scheduler, "step", None)):
        return scheduler
    raise SpecError(
        f"audit: scheduler is {'the class ' + scheduler.__name__ if isinstance(scheduler, type) else 'a '}"
        f"{'' if isinstance(scheduler, type) else type(scheduler).__name__}; must be a scheduler of torch or timm, a "
        "function (optimizer, step) that sets rates, or a list of these."
    )


def _copy_in_training(model: Module) -> Module | None:
    """Copy a model's modules, and call ``train()`` on the copy: it may freeze layers, as mmdetection's models do."""
    memo: dict[int, Any] = {}
    try:
        for tensor in model.parameters():
            memo[id(tensor)] = torch.nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        for buffer in model.buffers():
            memo[id(buffer)] = buffer
        return copy.deepcopy(model, memo).train()
    except Exception:  # a module of the user may hold what cannot be copied
        return None
