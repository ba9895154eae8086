"""Steps a scheduler on a copy, beside an optimizer of the same groups that has no parameters of the model."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from layered_lr.arrays import Float64
from layered_lr.files import one_line
from layered_lr_torch.audit.recipe import AuditedRecipe, is_function, is_torch_scheduler, read_rate
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import ParamGroup

MOST_STEPS = 200_000
_METRIC = 1.0  # which never gets better


class RatesOnly(torch.optim.Optimizer):
    """Has the options of an optimizer's groups, and one number in place of the parameters of each."""

    def __init__(self, optimizer: torch.optim.Optimizer, without_scale: bool = False) -> None:
        groups = [_copy_options(group) for group in optimizer.param_groups]
        for group in groups if without_scale else ():
            if "lr_scale" in group:
                group["lr_scale"] = 1.0
        super().__init__(groups[:1], _copy_options(optimizer.defaults))
        self.param_groups += groups[1:]  # add_param_group compares each one with all before it
        self._opt_called = True  # torch's schedulers warn where no step was made before theirs

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move nothing."""


class Simulation(NamedTuple):
    """The rates of a scheduler from its present step on.

    Args:
        rates: Shape (steps + 1, groups): the present rates first.
        error: What the scheduler raised at the step after the last row, if it did.
    """

    rates: Float64
    error: str | None


def simulate(
    recipe: AuditedRecipe, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, *, without_scale: bool = False
) -> Simulation:
    """Step a copy of a scheduler.

    Args:
        recipe: Whose parameters are not copied.
        optimizer: Whose rates it sets.
        scheduler: Of any class, or a function ``(optimizer, step)``.
        steps: How often to step it.
        without_scale: Whether every ``lr_scale`` of the groups is 1.

    Raises:
        Exception: What the copy raises before its first step.
    """
    with without_traces():
        twin = RatesOnly(optimizer, without_scale)
        advance = _driver(recipe, optimizer, scheduler, twin)
        rows, error = [_rates(twin)], None
        if is_function(scheduler):
            rows = []
            steps += 1
        for number in range(steps):
            try:
                advance(number)
            except Exception as failure:  # a scheduler behind its end, or one that does not know a group
                if not rows:
                    raise
                error = one_line(failure)
                break
            rows.append(_rates(twin))
    return Simulation(np.array(rows), error)


def copy_scheduler(recipe: AuditedRecipe, optimizer: torch.optim.Optimizer, scheduler: Any, twin: RatesOnly) -> Any:
    """Copy a scheduler for another optimizer, without copying anything of the model."""
    memo: dict[int, Any] = {id(optimizer): twin, id(scheduler.optimizer): twin}
    empty = torch.nn.Module()
    memo |= dict.fromkeys((id(module) for _, module in recipe.modules), empty)
    stand_in = torch.nn.Parameter(torch.zeros(()))
    memo |= dict.fromkeys((id(tensor) for tensor in recipe.tensors.values()), stand_in)
    return copy.deepcopy(scheduler, memo)


@contextmanager
def without_traces() -> Iterator[None]:
    """Hide warnings, and put the random numbers back that a scheduler may draw."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _driver(recipe: AuditedRecipe, optimizer: torch.optim.Optimizer, scheduler: Any, twin: RatesOnly) -> Any:
    """The function that makes step number n, counted from 0."""
    if is_function(scheduler):
        return lambda number: scheduler(twin, number)
    own = copy_scheduler(recipe, optimizer, scheduler, twin)
    if isinstance(own, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return lambda number: own.step(_METRIC)
    if isinstance(own, PlanScheduler) or is_torch_scheduler(own):
        return lambda number: own.step()
    if hasattr(own, "step_update"):  # timm's
        if getattr(own, "t_in_epochs", True):
            return lambda number: own.step(number + 1, _METRIC)
        return lambda number: own.step_update(number + 1)
    return lambda number: own.step()


def _copy_options(options: ParamGroup) -> ParamGroup:
    kept = {name: value for name, value in options.items() if name not in ("params", "param_names")}
    copied = {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in kept.items()
    }
    return copied | ({"params": [torch.nn.Parameter(torch.zeros(()))]} if "params" in options else {})


def _rates(twin: RatesOnly) -> list[float]:
    return [read_rate(group) for group in twin.param_groups]
