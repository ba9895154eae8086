"""Which schedules OneFlow's Graph computes itself, to the planned rate; imports no OneFlow.

Measured on OneFlow 0.9 against its own kernel, bitwise, and against the plan: within 1.7e-7 of it wherever
``native`` answers. What it leaves to a table, and why:

- what the kernel would abort the process for: no milestones, ``total_iters=0``, ``eta_min`` not below ``lr``;
- what OneFlow's classes refuse: ``gamma=0``, a milestone given twice, a ``SequentialLR`` inside another;
- what it computes otherwise than torch: ``CosineAnnealingWarmRestarts`` with ``T_mult`` 3 or 10 restarts late, as it
  finds the period by a logarithm (others above 2 are left out with them); ``LinearLR`` counts in float32;
- where another order of operations shows: the cosine next to ``T_max`` in very long periods;
- what it has no word for: a smooth schedule that stands still within an epoch;
- a group's ``lr`` that float32 holds only in part, from which a schedule may rise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

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


class _Place(NamedTuple):
    """Where a schedule stands.

    Args:
        steps: Updates in what it counts: 1, or those of an epoch.
        lr: The group's rate.
        total_steps: Of the run, if known.
    """

    steps: int
    lr: float
    total_steps: int | None

    def stretched(self, schedule: Schedule) -> int | None:
        """By how much a schedule that changes at every step gets longer in steps; None where it cannot."""
        return self.steps if self.steps == 1 or schedule.every_step else None


def native(plan: Plan, group: PlanGroup) -> Schedule | None:
    """The group's schedule, counted in steps, where OneFlow's Graph computes exactly that; else None."""
    if isinstance(group.schedule, Constant):
        return Constant()
    if group.lr == 0 and isinstance(group.schedule, FactorSchedule):
        return Constant()  # the kernel would make NaN of it where the factor is infinite
    if not np.finfo(np.float32).tiny <= group.lr <= np.finfo(np.float32).max:
        return None
    steps = (plan.steps_per_epoch or 1) if group.schedule.unit == "epoch" else 1
    return _in_steps(group.schedule, _Place(steps, group.lr, plan.total_steps))


def _in_steps(schedule: Schedule, place: _Place) -> Schedule | None:
    convert = _IN_STEPS.get(type(schedule))
    return convert(schedule, place) if convert else None


def _step_lr(schedule: StepLR, place: _Place) -> Schedule | None:
    size = schedule.step_size * place.steps
    return StepLR(size, schedule.gamma) if schedule.gamma > 0 and size <= LONGEST else None


def _multi_step_lr(schedule: MultiStepLR, place: _Place) -> Schedule | None:
    milestones = [milestone * place.steps for milestone in schedule.milestones]
    good = milestones and len(set(milestones)) == len(milestones) and milestones[-1] <= LONGEST
    return MultiStepLR(milestones, schedule.gamma) if good and schedule.gamma > 0 else None


def _exponential_lr(schedule: ExponentialLR, place: _Place) -> Schedule | None:
    if schedule.gamma == 0 or (schedule.every_step and place.steps > 1):
        return None
    return ExponentialLR(schedule.gamma) if place.steps == 1 else StepLR(place.steps, schedule.gamma)


def _constant_lr(schedule: ConstantLR, place: _Place) -> Schedule | None:
    length = schedule.total_iters * place.steps
    return ConstantLR(schedule.factor, length) if 0 < length <= LONGEST else None


def _linear_lr(schedule: LinearLR, place: _Place) -> Schedule | None:
    length = schedule.total_iters * (place.stretched(schedule) or 0)
    return LinearLR(schedule.start_factor, schedule.end_factor, length) if 0 < length <= LONGEST_LINE else None


def _polynomial_lr(schedule: PolynomialLR, place: _Place) -> Schedule | None:
    length = schedule.total_iters * (place.stretched(schedule) or 0)
    if place.steps > 1 and length * max(1.0, schedule.power) > LONGEST_LINE:
        return None
    return PolynomialLR(length, schedule.power) if 0 < length <= LONGEST else None


def _cosine_annealing_lr(schedule: CosineAnnealingLR, place: _Place) -> Schedule | None:
    length = schedule.T_max * (place.stretched(schedule) or 0)
    if not 0 < length <= LONGEST or schedule.eta_min >= as_float32(place.lr):
        return None
    candidate = CosineAnnealingLR(length, schedule.eta_min)
    return candidate if length <= LONGEST_COSINE or _is_exact_around_minima(candidate, schedule, place) else None


def _is_exact_around_minima(candidate: CosineAnnealingLR, schedule: CosineAnnealingLR, place: _Place) -> bool:
    """Whether the kernel meets the planned rates of this very run where a bit of the cosine weighs most."""
    if place.total_steps is None:
        return False
    length, reach = candidate.T_max, math.ceil(candidate.T_max / LONGEST_COSINE)
    first = np.arange(length - reach, place.total_steps, 2 * length)
    if not first.size:
        return True
    steps = (first[:, None] + np.arange(2 * reach + 1)).ravel()
    planned = schedule(schedule.position(steps, place.steps), place.lr)
    # Half of what a rate may be off, as lr and lr_scale are rounded too.
    return np.allclose(KernelSchedule(candidate)(steps, as_float32(place.lr)), planned, rtol=5e-7, atol=0)


def _warm_restarts(schedule: CosineAnnealingWarmRestarts, place: _Place) -> Schedule | None:
    length = schedule.T_0 * (place.stretched(schedule) or 0)
    if not 0 < length <= LONGEST or schedule.T_mult > 2 or schedule.eta_min >= as_float32(place.lr):
        return None
    if place.steps > 1 and (schedule.T_mult > 1 or length > LONGEST_COSINE):
        return None
    return CosineAnnealingWarmRestarts(length, schedule.T_mult, schedule.eta_min)


def _sequential_lr(schedule: SequentialLR, place: _Place) -> Schedule | None:
    milestones = [milestone * place.steps for milestone in schedule.milestones]
    children: list[Schedule] = []
    for child in schedule.schedulers:
        inside = None if isinstance(child, SequentialLR) else _in_steps(child, place)
        if inside is None:
            return None
        children.append(inside)
    return SequentialLR(children, milestones) if max(milestones, default=0) <= LONGEST else None


def _constant(schedule: Constant, place: _Place) -> Schedule:
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
