"""Computes schedules in OneFlow's own arithmetic, to the last bit; imports no OneFlow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.schedules import (
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
from layered_lr.schedules.arithmetic import count_reached
from layered_lr.schedules.base import Child
from layered_lr.validation import value_class

Rate: TypeAlias = Any
"""A rate as a float, or rates as an array of float64."""


@value_class
class KernelSchedule(Schedule):
    """A schedule as the ``learning_rate_schedule`` kernel of OneFlow 0.9 computes it, in float64.

    Its formulas have another order of operations than torch's, so the results differ in the last bits, and more where
    terms cancel:
    https://github.com/Oneflow-Inc/oneflow/blob/v0.9.0/oneflow/core/kernel/learning_rate_schedule_kernel.cpp.
    ``pow`` and ``cos`` are the C library's, as in the kernel: NumPy's may differ by an ulp.

    Args:
        schedule: Of a kind that ``_FORMULAS`` has, counted in steps.
    """

    schedule: Child

    def _rate(self, step: Any, lr: Any) -> Any:
        steps = np.atleast_1d(np.asarray(step, dtype=np.float64))
        rates = _FORMULAS[type(self.schedule)](self.schedule, steps, lr)
        return float(rates[0]) if type(step) is float and type(lr) is float else rates

    @property
    def _multiplies(self) -> bool:
        return self.schedule._multiplies


def as_float32(lr: float) -> float:
    """Round a group's rate to float32, as the kernel starts from it."""
    return float(np.float32(lr))


def _pow(base: float, exponents: Float64) -> Float64:
    values, places = np.unique(exponents, return_inverse=True)
    return np.array([_power(base, value) for value in values.tolist()])[places]


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def _one_plus_cos(angles: Float64) -> Float64:
    return 1 + np.fromiter(map(math.cos, angles.tolist()), np.float64, len(angles))


def _step_lr(schedule: StepLR, steps: Float64, lr: Rate) -> Rate:
    return lr * _pow(schedule.gamma, np.floor(steps / schedule.step_size))


def _multi_step_lr(schedule: MultiStepLR, steps: Float64, lr: Rate) -> Rate:
    return lr * _pow(schedule.gamma, count_reached(schedule.milestones, steps))


def _exponential_lr(schedule: ExponentialLR, steps: Float64, lr: Rate) -> Rate:
    return lr * _pow(schedule.gamma, steps)


def _constant_lr(schedule: ConstantLR, steps: Float64, lr: Rate) -> Rate:
    return lr * np.where(steps < schedule.total_iters, schedule.factor, 1.0)


def _linear_lr(schedule: LinearLR, steps: Float64, lr: Rate) -> Rate:
    start, end = schedule.start_factor, schedule.end_factor
    part = steps.astype(np.float32).astype(np.float64) / float(np.float32(schedule.total_iters))
    return lr * np.where(steps < schedule.total_iters, start + (end - start) * part, end)


def _polynomial_lr(schedule: PolynomialLR, steps: Float64, lr: Rate) -> Rate:
    left = 1.0 - np.minimum(steps, schedule.total_iters) / schedule.total_iters
    factors = [_power(value, schedule.power) for value in left.tolist()]
    return lr * np.array(factors)


def _cosine_annealing_lr(schedule: CosineAnnealingLR, steps: Float64, lr: Rate) -> Rate:
    low = schedule.eta_min
    annealed = low + (lr - low) * _one_plus_cos(math.pi * (steps / schedule.T_max)) / 2
    return np.where(steps == 0, lr, annealed)


def _warm_restarts(schedule: CosineAnnealingWarmRestarts, steps: Float64, lr: Rate) -> Rate:
    low, (since, length) = schedule.eta_min, schedule._phase(steps)
    return low + 0.5 * (lr - low) * _one_plus_cos(math.pi * since / length)


def _sequential_lr(schedule: SequentialLR, steps: Float64, lr: Rate) -> Rate:
    rates = np.empty(np.broadcast_shapes(np.shape(lr), steps.shape))
    numbers = count_reached(schedule.milestones, steps).astype(np.int64)
    for number in np.unique(numbers).tolist():
        mine, child = numbers == number, schedule.schedulers[number]
        start = schedule.milestones[number - 1] if number else 0
        rates[..., mine] = _FORMULAS[type(child)](child, steps[mine] - start, lr)
    return rates


_FORMULAS: Mapping[type[Schedule], Callable[[Any, Float64, Rate], Rate]] = {
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
