"""Makes schedulers for OneFlow's Graph: its own if they are exact, else a table of rates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
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
from layered_lr_oneflow.lowering import make_rate_table
from layered_lr_oneflow.native_schedules import find_native_schedule
from layered_lr_oneflow.oneflow_types import Message, NativeOptimizer, NativeScheduler
from layered_lr_oneflow.runtime import flow

schedulers = flow.optim.lr_scheduler


def _sequential_lr(optimizer: NativeOptimizer, schedule: SequentialLR) -> NativeScheduler:
    children = [_make_scheduler(optimizer, child) for child in schedule.schedulers]
    return schedulers.SequentialLR(optimizer, children, list(schedule.milestones), interval_rescaling=True)


# How to make OneFlow's scheduler for each kind of schedule that `find_native_schedule` returns.
_MAKE: Mapping[type[Schedule], Callable[[NativeOptimizer, Any], NativeScheduler | None]] = {
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


def _make_scheduler(optimizer: NativeOptimizer, schedule: Schedule) -> NativeScheduler:
    return _MAKE[type(schedule)](optimizer, schedule)


class TableScheduler(schedulers._LRScheduler):  # type: ignore[name-defined] # OneFlow has no types
    """A rate for each step, as OneFlow's native ``piecewise_constant_conf``.

    Args:
        optimizer: OneFlow's.
        boundaries: The last step of each run of equal rates, except the last run.
        values: The rate of each run.
    """

    def __init__(self, optimizer: NativeOptimizer, boundaries: list[int], values: list[float]) -> None:
        self.boundaries, self.values = boundaries, values
        super().__init__(optimizer)

    def get_lr(self, base_lr: float, step: int) -> float:
        """Return the first rate: OneFlow asks only for step 0, when it makes the scheduler."""
        return self.values[0]

    def _generate_conf_for_graph(self, lr_conf: Message) -> None:
        lr_conf.piecewise_constant_conf.SetInParent()
        lr_conf.piecewise_constant_conf.boundaries.extend(self.boundaries)
        lr_conf.piecewise_constant_conf.values.extend(self.values)


def make_sharing_key(plan: Plan, group: PlanGroup) -> tuple[Hashable, ...]:
    """Make a key that is equal for groups that one optimizer and its scheduler can serve.

    A native scheduler multiplies each group's own rate; a table sets the rate, so the groups' ``lr`` must be equal.
    """
    schedule = find_native_schedule(plan, group)
    kind = type(group.optimizer)
    return (kind, "native", schedule) if schedule is not None else (kind, "table", group.schedule, group.lr)


def build_scheduler(plan: Plan, group: PlanGroup, optimizer: NativeOptimizer) -> NativeScheduler | None:
    """Make the scheduler for a group, and for all that share it; None if the rate never changes.

    Raises:
        SpecError: A table is needed, and the plan does not know how long the run is.
    """
    schedule = find_native_schedule(plan, group)
    if schedule is not None:
        return _make_scheduler(optimizer, schedule)
    return TableScheduler(optimizer, *make_rate_table(plan, group))
