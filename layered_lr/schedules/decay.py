"""torch's schedules that multiply the group's rate by a factor of the step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, Field

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Count, Counts, Fraction, PositiveCount, plain
from layered_lr.schedules.arithmetic import Value, at_most, count_reached, power, raised, whole
from layered_lr.schedules.base import FactorSchedule, Schedule
from layered_lr.validation import NonNegative, value_class

AboveZero = Annotated[float, BeforeValidator(plain), Field(strict=True, allow_inf_nan=False, gt=0, le=1)]


@value_class
class Constant(FactorSchedule):
    """The group's ``lr``, from the first step to the last."""

    def _factor(self, step: Value) -> float:
        return 1.0


@value_class
class StepLR(FactorSchedule):
    """``lr * gamma ** (step // step_size)``: torch's ``StepLR`` in its closed form.

    torch's own ``step()`` multiplies by ``gamma`` at each boundary and drifts from this by one rounding
    error per boundary. In a chain it multiplies the rate that it finds.

    Args:
        step_size: Steps (or epochs) between two decays, >= 1.
        gamma: Factor of one decay, >= 0.
    """

    step_size: PositiveCount
    gamma: NonNegative = 0.1

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, whole(step / self.step_size))


@value_class
class MultiStepLR(FactorSchedule):
    """``lr * gamma ** (number of milestones <= step)``: torch's ``MultiStepLR`` in its closed form.

    A milestone given twice decays twice; one at 0 acts from the first step on. In a chain it multiplies the
    rate that it finds. torch sorts milestones silently; here they must be in order.

    Args:
        milestones: Steps (or epochs) of the decays, >= 0, in ascending order.
        gamma: Factor of one decay, >= 0.
    """

    milestones: Counts
    gamma: NonNegative = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ascending(self, self.milestones)

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, count_reached(self.milestones, step))


@value_class
class ConstantLR(FactorSchedule):
    """``lr * factor`` before ``total_iters``, ``lr`` from then on: torch's ``ConstantLR`` in its closed form.

    With ``total_iters=0`` torch's ``step()`` never reaches the end and keeps the factor for ever (its closed
    form would not); this follows ``step()``. With ``factor=0`` torch divides by zero at ``total_iters``; this
    follows its closed form. In a chain it multiplies the rate that it finds.

    Args:
        factor: Factor until ``total_iters``, 0 to 1.
        total_iters: Steps (or epochs) that the factor lasts.
    """

    factor: Fraction = 1.0 / 3
    total_iters: Count = 5

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return self.factor
        return self.factor + (step >= self.total_iters) * (1 - self.factor)


@value_class
class LinearLR(FactorSchedule):
    """``lr`` times a factor on a straight line from ``start_factor`` to ``end_factor`` over ``total_iters``.

    ``lr * (start + (end - start) * min(step, total_iters) / total_iters)``: torch's ``LinearLR`` in its closed
    form, but for the end: that is ``end_factor`` itself here, where torch's rounding can miss it and go below 0.
    torch's ``step()`` drifts by a few rounding errors per step. With ``total_iters=0`` torch's closed form divides
    by zero and its ``step()`` stays at ``start_factor``; so does this. In a chain it multiplies the rate that it
    finds.

    Args:
        start_factor: Factor at step 0, above 0, at most 1.
        end_factor: Factor from ``total_iters`` on, 0 to 1.
        total_iters: Steps (or epochs) that the line takes.
    """

    start_factor: AboveZero = 1.0 / 3
    end_factor: Fraction = 1.0
    total_iters: Count = 5

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return self.start_factor
        over = step >= self.total_iters
        rise = self.end_factor - self.start_factor
        line = self.start_factor + rise * at_most(step, self.total_iters) / self.total_iters
        return over * self.end_factor + (1 - over) * line


@value_class
class ExponentialLR(FactorSchedule):
    """``lr * gamma ** step``: torch's ``ExponentialLR`` in its closed form.

    torch's ``step()`` drifts from this by one rounding error per step. In a chain it multiplies the rate that
    it finds.

    Args:
        gamma: Factor of one step (or epoch), >= 0.
    """

    gamma: NonNegative

    def _factor(self, step: Value) -> Value:
        return power(self.gamma, step)


@value_class
class PolynomialLR(FactorSchedule):
    """``lr * (1 - min(step, total_iters) / total_iters) ** power``: torch's ``PolynomialLR`` in its closed form.

    torch's ``step()`` multiplies ratios of consecutive factors, which cancel towards the end, and drifts. With
    ``total_iters=0`` torch's closed form divides by zero and its ``step()`` stays at ``lr``; so does this. In a
    chain it multiplies the rate that it finds.

    Args:
        total_iters: Steps (or epochs) until the rate is 0.
        power: Exponent, >= 0; 1 is a straight line.
    """

    total_iters: Count = 5
    power: NonNegative = 1.0

    def _factor(self, step: Value) -> Value:
        if not self.total_iters:
            return 1.0
        return raised(1.0 - at_most(step, self.total_iters) / self.total_iters, self.power)


def check_ascending(schedule: Schedule, milestones: Sequence[int]) -> None:
    """Refuse milestones that go back.

    Raises:
        SpecError: one is smaller than the one before.
    """
    for before, after in pairwise(milestones):
        if after < before:
            raise SpecError(
                f"{type(schedule).__name__}(milestones={list(milestones)}): milestones must ascend, "
                f"but {after} comes after {before}."
            )
