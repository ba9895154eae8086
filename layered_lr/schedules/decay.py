"""torch's schedules that multiply the group's rate by a factor which depends on the step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.scalars import unwrap_scalar
from layered_lr.schedules.arguments import Count, Counts, Fraction, PositiveCount
from layered_lr.schedules.arithmetic import Value, count_reached, floor, minimum, power, raise_to
from layered_lr.schedules.base import FactorSchedule, Schedule
from layered_lr.validation import NonNegative, value_class

AboveZero = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, gt=0, le=1)]


@value_class
class Constant(FactorSchedule):
    """The group's ``lr``, from the first step to the last.

    Example:
        >>> import layered_lr as ll
        >>> ll.Constant()([0, 100], lr=0.1)
        array([0.1, 0.1])
    """

    def _factor(self, step: Value) -> float:
        return 1.0


@value_class
class StepLR(FactorSchedule):
    """``lr * gamma ** (step // step_size)``: torch's ``StepLR`` in its closed form.

    torch's ``step()`` multiplies by ``gamma`` at each boundary, and drifts from this by one rounding error each time.
    In a ``ChainedScheduler`` it multiplies the previous rate.

    Args:
        step_size: Steps (or epochs) between two decays, >= 1.
        gamma: Factor of one decay, >= 0.

    Example:
        >>> import layered_lr as ll
        >>> ll.StepLR(step_size=2, gamma=0.5)([0, 1, 2, 3, 4], lr=0.8)
        array([0.8, 0.8, 0.4, 0.4, 0.2])
    """

    step_size: PositiveCount
    gamma: NonNegative = 0.1

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, floor(step / self.step_size))

    def _ratio_past_zero(self, step: Float64) -> Float64:
        return np.where(step % self.step_size == 0, self.gamma, 1.0)


@value_class
class MultiStepLR(FactorSchedule):
    """``lr * gamma ** (number of milestones <= step)``: torch's ``MultiStepLR`` in its closed form.

    A milestone that is given twice decays twice; a milestone at 0 acts from the first step on. torch sorts milestones
    silently; here they must be in order. In a ``ChainedScheduler`` it multiplies the previous rate.

    Args:
        milestones: Steps (or epochs) of the decays, >= 0, in ascending order.
        gamma: Factor of one decay, >= 0.

    Example:
        >>> import layered_lr as ll
        >>> ll.MultiStepLR(milestones=[1, 3], gamma=0.5)([0, 1, 2, 3], lr=0.8)
        array([0.8, 0.4, 0.4, 0.2])
    """

    milestones: Counts
    gamma: NonNegative = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ascending(self, self.milestones)

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, count_reached(self.milestones, step))

    def _ratio_past_zero(self, step: Float64) -> Float64:
        reached = np.array([self.milestones.count(int(each)) for each in step], dtype=np.float64)
        return self.gamma**reached


@value_class
class ConstantLR(FactorSchedule):
    """``lr * factor`` before ``total_iters``, ``lr`` from then on: torch's ``ConstantLR`` in its closed form.

    Two special cases: with ``total_iters=0`` the factor stays for ever, as with torch's ``step()``; with ``factor=0``,
    where torch's ``step()`` divides by zero, this follows torch's closed form. In a ``ChainedScheduler`` it multiplies
    the previous rate.

    Args:
        factor: Factor until ``total_iters``, 0 to 1.
        total_iters: Steps (or epochs) that the factor lasts.

    Example:
        >>> import layered_lr as ll
        >>> ll.ConstantLR(factor=0.5, total_iters=2)([0, 1, 2, 3], lr=0.8)
        array([0.4, 0.4, 0.8, 0.8])
    """

    factor: Fraction = 1.0 / 3
    total_iters: Count = 5

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return self.factor
        return self.factor + (step >= self.total_iters) * (1 - self.factor)

    def _ratio_past_zero(self, step: Float64) -> Float64:
        return np.ones(len(step))


@value_class
class LinearLR(FactorSchedule):
    """``lr`` times a factor on a straight line from ``start_factor`` to ``end_factor`` over ``total_iters``.

    ``lr * (start + (end - start) * min(step, total_iters) / total_iters)``: torch's ``LinearLR`` in its closed form.
    The end is exactly ``end_factor``; torch's rounding can miss it and go below 0. torch's ``step()`` drifts by a few
    rounding errors per step. With ``total_iters=0`` the factor stays ``start_factor``, as with torch's ``step()``. In a
    ``ChainedScheduler`` it multiplies the previous rate.

    Args:
        start_factor: Factor at step 0, above 0, at most 1.
        end_factor: Factor from ``total_iters`` on, 0 to 1.
        total_iters: Steps (or epochs) that the line takes.

    Example:
        >>> import layered_lr as ll
        >>> ll.LinearLR(start_factor=0.5, end_factor=1.0, total_iters=2)([0, 1, 2, 3], lr=0.8)
        array([0.4, 0.6, 0.8, 0.8])
    """

    start_factor: AboveZero = 1.0 / 3
    end_factor: Fraction = 1.0
    total_iters: Count = 5

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return self.start_factor
        over = step >= self.total_iters
        rise = self.end_factor - self.start_factor
        line = self.start_factor + rise * minimum(step, self.total_iters) / self.total_iters
        return over * self.end_factor + (1 - over) * line

    def _ratio_past_zero(self, step: Float64) -> Float64:
        return np.ones(len(step))


@value_class
class ExponentialLR(FactorSchedule):
    """``lr * gamma ** step``: torch's ``ExponentialLR`` in its closed form.

    torch's ``step()`` drifts from this by one rounding error per step. In a ``ChainedScheduler`` it multiplies the
    previous rate.

    Args:
        gamma: Factor of one step (or epoch), >= 0.

    Example:
        >>> import layered_lr as ll
        >>> ll.ExponentialLR(gamma=0.5)([0, 1, 2], lr=0.8)
        array([0.8, 0.4, 0.2])
    """

    gamma: NonNegative

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, step)

    def _ratio_past_zero(self, step: Float64) -> Float64:
        return np.full(len(step), self.gamma)


@value_class
class PolynomialLR(FactorSchedule):
    """``lr * (1 - min(step, total_iters) / total_iters) ** power``: torch's ``PolynomialLR`` in its closed form.

    torch's ``step()`` multiplies ratios of consecutive factors and drifts, most of all near the end. With
    ``total_iters=0`` the rate stays ``lr``, as with torch's ``step()``. In a ``ChainedScheduler`` it multiplies the
    previous rate.

    Args:
        total_iters: Steps (or epochs) until the rate is 0.
        power: Exponent, >= 0; 1 is a straight line.

    Example:
        >>> import layered_lr as ll
        >>> ll.PolynomialLR(total_iters=4, power=2.0)([0, 2, 4, 5], lr=0.8)
        array([0.8, 0.2, 0. , 0. ])
    """

    total_iters: Count = 5
    power: NonNegative = 1.0

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return 1.0
        return raise_to(1.0 - minimum(step, self.total_iters) / self.total_iters, self.power)

    def _ratio_past_zero(self, step: Float64) -> Float64:
        left = np.maximum(self.total_iters - step, 0.0)  # of the steps, where the line has not ended
        return np.where(step > self.total_iters, 1.0, (left / (left + 1.0)) ** self.power)


def check_ascending(schedule: Schedule, milestones: Sequence[int]) -> None:
    """Check that no milestone is smaller than the one before it.

    Raises:
        SpecError: A milestone is smaller than the one before it.
    """
    for before, after in pairwise(milestones):
        if after < before:
            raise SpecError(
                f"{type(schedule).__name__}(milestones={list(milestones)}): milestones must ascend, "
                f"but {after} comes after {before}."
            )
