"""Finds the schedules that OneFlow's Graph can compute itself, exactly as planned; imports no OneFlow.

Measured on OneFlow 0.9: the schedules found are bitwise those of its own kernel, and within 1.7e-7 of the plan. These
schedules need a table instead:

- those for which the kernel would abort the process: no milestones, ``total_iters=0``, ``eta_min`` not below ``lr``;
- those that OneFlow's classes refuse: ``gamma=0``, a milestone given twice, a ``SequentialLR`` inside another;
- those that it computes differently from torch: ``CosineAnnealingWarmRestarts`` with ``T_mult`` 3 or 10 restarts late,
  because it finds the period by a logarithm (so all above 2 are left out); ``LinearLR`` counts in float32;
- those where its order of operations matters: the cosine next to ``T_max`` in very long periods;
- those that it cannot express: a smooth schedule that changes only from epoch to epoch;
- a group whose ``lr`` float32 cannot hold in full precision, because a schedule may rise from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import FLOAT32_MAX, FLOAT32_TINY
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from layered_lr.schedules import (
    Constant,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    FactorSchedule,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    Schedule,
    SequentialLR,
    StepLR,
)
from layered_lr_oneflow.kernel_arithmetic import KernelSchedule, as_float32

LONGEST = 2**53  # as in the schedules themselves: the largest count that a float64 holds exactly
LONGEST_LINE = 2**24  # the same for float32; up to here 1 - step / length is exact to 1e-8 of itself, however rounded
LONGEST_COSINE = 10**5  # one bit of 1 + cos is 2e-7 of it a step away from such a T_max, and grows with its square


class _Context(NamedTuple):
    """What a schedule depends on beside its own arguments.

    Args:
        steps: Updates in the unit that the schedule counts: 1, or the updates of an epoch.
        lr: The group's rate.
        total_steps: The updates of the run; None if unknown.
    """

    steps: int
    lr: float
    total_steps: int | None

    def find_stretch(self, schedule: Schedule) -> int | None:
        """Find the factor from the schedule's lengths to lengths in steps; None if steps cannot express it."""
        return self.steps if self.steps == 1 or schedule.every_step else None


def find_native_schedule(plan: Plan, group: PlanGroup) -> Schedule | None:
    """Find the group's schedule, counted in steps, if OneFlow's Graph computes exactly that; else None."""
    if isinstance(group.schedule, Constant):
        return Constant()
    if group.lr == 0 and isinstance(group.schedule, FactorSchedule):
        return Constant()  # the kernel would make NaN of it where the factor is infinite
    if not FLOAT32_TINY <= group.lr <= FLOAT32_MAX:
        return None
    steps = (plan.steps_per_epoch or 1) if group.schedule.unit == "epoch" else 1
    return _in_steps(group.schedule, _Context(steps, group.lr, plan.total_steps))


def _in_steps(schedule: Schedule, context: _Context) -> Schedule | None:
    convert = _IN_STEPS.get(type(schedule))
    return convert(schedule, context) if convert else None


def _step_lr(schedule: StepLR, context: _Context) -> Schedule | None:
    size = schedule.step_size * context.steps
    return StepLR(size, schedule.gamma) if schedule.gamma > 0 and size <= LONGEST else None


def _multi_step_lr(schedule: MultiStepLR, context: _Context) -> Schedule | None:
    milestones = [milestone * context.steps for milestone in schedule.milestones]
    good = milestones and len(set(milestones)) == len(milestones) and milestones[-1] <= LONGEST
    return MultiStepLR(milestones, schedule.gamma) if good and schedule.gamma > 0 else None


def _exponential_lr(schedule: ExponentialLR, context: _Context) -> Schedule | None:
    if schedule.gamma == 0 or (schedule.every_step and context.steps > 1):
        return None
    return ExponentialLR(schedule.gamma) if context.steps == 1 else StepLR(context.steps, schedule.gamma)


def _constant_lr(schedule: ConstantLR, context: _Context) -> Schedule | None:
    length = schedule.total_iters * context.steps
    return ConstantLR(schedule.factor, length) if 0 < length <= LONGEST else None


def _linear_lr(schedule: LinearLR, context: _Context) -> Schedule | None:
    length = schedule.total_iters * (context.find_stretch(schedule) or 0)
    return LinearLR(schedule.start_factor, schedule.end_factor, length) if 0 < length <= LONGEST_LINE else None


def _polynomial_lr(schedule: PolynomialLR, context: _Context) -> Schedule | None:
    length = schedule.total_iters * (context.find_stretch(schedule) or 0)
    if context.steps > 1 and length * max(1.0, schedule.power) > LONGEST_LINE:
        return None
    return PolynomialLR(length, schedule.power) if 0 < length <= LONGEST else None


def _cosine_annealing_lr(schedule: CosineAnnealingLR, context: _Context) -> Schedule | None:
    length = schedule.T_max * (context.find_stretch(schedule) or 0)
    if not 0 < length <= LONGEST or schedule.eta_min >= as_float32(context.lr):
        return None
    candidate = CosineAnnealingLR(length, schedule.eta_min)
    return candidate if length <= LONGEST_COSINE or _is_exact_around_minima(candidate, schedule, context) else None


def _is_exact_around_minima(candidate: CosineAnnealingLR, schedule: CosineAnnealingLR, context: _Context) -> bool:
    """Whether the kernel computes the planned rates of this run near the minima, where rounding matters most."""
    if context.total_steps is None:
        return False
    length, reach = candidate.T_max, math.ceil(candidate.T_max / LONGEST_COSINE)
    first = np.arange(length - reach, context.total_steps, 2 * length)
    if not first.size:
        return True
    steps = (first[:, None] + np.arange(2 * reach + 1)).ravel()
    planned = schedule(schedule.position(steps, context.steps), context.lr)
    # Half of the allowed error, because lr and lr_scale are rounded too.
    return np.allclose(KernelSchedule(candidate)(steps, as_float32(context.lr)), planned, rtol=5e-7, atol=0)


def _warm_restarts(schedule: CosineAnnealingWarmRestarts, context: _Context) -> Schedule | None:
    length = schedule.T_0 * (context.find_stretch(schedule) or 0)
    if not 0 < length <= LONGEST or schedule.T_mult > 2 or schedule.eta_min >= as_float32(context.lr):
        return None
    if context.steps > 1 and (schedule.T_mult > 1 or length > LONGEST_COSINE):
        return None
    return CosineAnnealingWarmRestarts(length, schedule.T_mult, schedule.eta_min)


def _sequential_lr(schedule: SequentialLR, context: _Context) -> Schedule | None:
    milestones = [milestone * context.steps for milestone in schedule.milestones]
    children: list[Schedule] = []
    for child in schedule.schedulers:
        inside = None if isinstance(child, SequentialLR) else _in_steps(child, context)
        if inside is None:
            return None
        children.append(inside)
    return SequentialLR(children, milestones) if max(milestones, default=0) <= LONGEST else None


def _constant(schedule: Constant, context: _Context) -> Schedule:
    return ConstantLR(1.0, 1)  # only in a SequentialLR: OneFlow has no scheduler that does nothing


_IN_STEPS: Mapping[type[Schedule], Callable[..., Schedule | None]] = {
    Constant: _constant,
    StepLR: _step_lr,
    MultiStepLR: _multi_step_lr,
    ExponentialLR: _exponential_lr,
    ConstantLR: _constant_lr,
    LinearLR: _linear_lr,
    PolynomialLR: _polynomial_lr,
    CosineAnnealingLR: _cosine_annealing_lr,
    CosineAnnealingWarmRestarts: _warm_restarts,
    SequentialLR: _sequential_lr,
}
