"""Schedules of OneFlow's Graph: its own where they are exact, a table of rates elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from layered_lr.schedules import (
    Constant,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    Schedule,
    SequentialLR,
    StepLR,
)
from layered_lr_oneflow.lowering import rate_table
from layered_lr_oneflow.native_schedules import native
from layered_lr_oneflow.runtime import flow

schedulers = flow.optim.lr_scheduler


def _sequential_lr(optimizer: Any, schedule: SequentialLR) -> Any:
    children = [_made(optimizer, child) for child in schedule.schedulers]
    return schedulers.SequentialLR(optimizer, children, list(schedule.milestones), interval_rescaling=True)


# What makes OneFlow's scheduler for each schedule that `natives.native` may answer.
_MAKE: Mapping[type[Schedule], Callable[[Any, Any], Any]] = {
    Constant: lambda optimizer, schedule: None,
    StepLR: lambda optimizer, schedule: schedulers.StepLR(optimizer, schedule.step_size, schedule.gamma),
    MultiStepLR: lambda optimizer, schedule: schedulers.MultiStepLR(
        optimizer, list(schedule.milestones), schedule.gamma
    ),
    ExponentialLR: lambda optimizer, schedule: schedulers.ExponentialLR(optimizer, schedule.gamma),
    ConstantLR: lambda optimizer, schedule: schedulers.ConstantLR(optimizer, schedule.factor, schedule.total_iters),
    LinearLR: lambda optimizer, schedule: schedulers.LinearLR(
        optimizer, schedule.start_factor, schedule.end_factor, schedule.total_iters
    ),
    PolynomialLR: lambda optimizer, schedule: schedulers.PolynomialLR(
        optimizer, schedule.total_iters, end_learning_rate=0.0, power=schedule.power
    ),
    CosineAnnealingLR: lambda optimizer, schedule: schedulers.CosineAnnealingLR(
        optimizer, schedule.T_max, schedule.eta_min
    ),
    CosineAnnealingWarmRestarts: lambda optimizer, schedule: schedulers.CosineAnnealingWarmRestarts(
        optimizer, schedule.T_0, schedule.T_mult, schedule.eta_min
    ),
    SequentialLR: _sequential_lr,
}


def _made(optimizer: Any, schedule: Schedule) -> Any:
    return _MAKE[type(schedule)](optimizer, schedule)


class TableScheduler(schedulers._LRScheduler):  # type: ignore[misc, name-defined] # OneFlow has no types
    """A rate per step, as OneFlow's native ``piecewise_constant_conf``.

    Args:
        optimizer: OneFlow's.
        boundaries: The last step of every run of equal rates but the last run.
        values: The rate of every run.
    """

    def __init__(self, optimizer: Any, boundaries: list[int], values: list[float]) -> None:
        self.boundaries, self.values = boundaries, values
        super().__init__(optimizer)

    def get_lr(self, base_lr: float, step: int) -> float:
        """Only asked for step 0, when OneFlow makes the scheduler."""
        return self.values[0]

    def _generate_conf_for_graph(self, lr_conf: Any) -> None:
        lr_conf.piecewise_constant_conf.SetInParent()
        lr_conf.piecewise_constant_conf.boundaries.extend(self.boundaries)
        lr_conf.piecewise_constant_conf.values.extend(self.values)


def sharing_key(plan: Plan, group: PlanGroup) -> tuple[Any, ...]:
    """Equal for groups that one scheduler can serve: a native one multiplies each group's rate, a table sets it."""
    schedule = native(plan, group)
    return ("native", schedule) if schedule is not None else ("table", group.schedule, group.lr)


def build_scheduler(plan: Plan, group: PlanGroup, optimizer: Any) -> Any:
    """The scheduler for a group, and for all that share it; None where the rate never changes.

    Raises:
        SpecError, Unsupported: See ``lowering.rate_table``.
    """
    schedule = native(plan, group)
    if schedule is not None:
        return _made(optimizer, schedule)
    return TableScheduler(optimizer, *rate_table(plan, group))
