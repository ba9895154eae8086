"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Counts
from layered_lr.schedules.arithmetic import Value, piecewise
from layered_lr.schedules.base import Children, Schedule, Updates
from layered_lr.schedules.decay import check_ascending
from layered_lr.schedules.recurrences import Kept
from layered_lr.validation import value_class

_AHEAD = 1024


def adopted(parent: Schedule, child: Schedule) -> Schedule:
    """``child`` counting what ``parent`` counts.

    Raises:
        SpecError: the child was told to count something else than its parent.
    """
    if (child.unit, child.every_step) == (parent.unit, parent.every_step):
        return child
    if child.unit == "epoch" and (parent.unit != "epoch" or child.every_step):
        wanted = "unit='epoch', every_step=True" if child.every_step else "unit='epoch'"
        raise SpecError(
            f"{type(parent).__name__}: the {type(child).__name__} inside counts otherwise than the schedule around "
            f"it. Give {wanted} to the {type(parent).__name__}, and lengths in epochs."
        )
    return replace(child, unit=parent.unit, every_step=parent.every_step)


def _adopt_all(parent: SequentialLR | ChainedScheduler) -> None:
    kind = type(parent).__name__
    if not parent.schedulers:
        raise SpecError(f"{kind}(schedulers=[]): schedulers must hold at least one schedule.")
    for number, child in enumerate(parent.schedulers):
        if child.reaction(0.0) is not None:
            raise SpecError(
                f"{kind}: schedulers[{number}] is a {type(child).__name__} whose rate is decided while training, "
                "which cannot be combined with others (nor can it in torch). Put a Warmup before it instead."
            )
    object.__setattr__(parent, "schedulers", tuple(adopted(parent, child) for child in parent.schedulers))


@value_class
class SequentialLR(Schedule):
    """One schedule after the other: torch's ``SequentialLR``.

    From its milestone on, each schedule sees the group's own ``lr`` and its own steps, counted from 0 at that
    milestone: ``schedulers[i](step - milestones[i - 1], lr)``.

    That is torch's closed form. torch differs where a ``MultiplicativeLR`` is not the first (it goes on from the
    rate that the one before has left), and where a ``OneCycleLR`` or ``CyclicLR`` made first has changed the
    optimizer's ``initial_lr`` for those made after it. In a chain it sets the rate at each milestone, and
    between them does what the schedule then active does.

    Args:
        schedulers: The schedules, in order; not ``ReduceLROnPlateau``.
        milestones: Where the second and each later one begins: ascending, one fewer than schedules.
    """

    schedulers: Children
    milestones: Counts

    def __post_init__(self) -> None:
        super().__post_init__()
        _adopt_all(self)
        if len(self.milestones) != len(self.schedulers) - 1:
            raise SpecError(
                f"SequentialLR: {len(self.schedulers)} schedulers need {len(self.schedulers) - 1} milestones "
                f"between them, but milestones={list(self.milestones)} has {len(self.milestones)}."
            )
        check_ascending(self, self.milestones)

    @property
    def is_bound(self) -> bool:
        """Whether every schedule inside knows its length."""
        return all(child.is_bound for child in self.schedulers)

    @property
    def drives_momentum(self) -> bool:
        """Whether a schedule inside moves the momentum too."""
        return any(child.drives_momentum for child in self.schedulers)

    def bound(self, total: float) -> SequentialLR:
        """This schedule with missing lengths taken from the part of the run that each schedule has."""
        ends = (*self.milestones, max(total, self._start(len(self.schedulers) - 1)))
        children = tuple(
            child.bound(max(1, end - self._start(number)))
            for number, (child, end) in enumerate(zip(self.schedulers, ends, strict=True))
        )
        return self if children == self.schedulers else replace(self, schedulers=children)

    def _start(self, number: int) -> int:
        return self.milestones[number - 1] if number else 0

    def _rate(self, step: Value, lr: Value) -> Value:
        if type(step) is float:
            number = bisect_right(self.milestones, step)
            return self.schedulers[number]._rate(step - self._start(number), lr)
        return piecewise(step, lr, self.milestones, self._rate_in)

    def _rate_in(self, number: int, step: Value, lr: Value) -> Value:
        return self.schedulers[number]._rate(step - self._start(number), lr)

    def _momentum(self, step: Value) -> Value:
        return piecewise(step, 0.0, self.milestones, self._momentum_in)

    def _momentum_in(self, number: int, step: Value, _: Value) -> Value:
        """Of the active schedule; else what the last one to drive it left; else what the first will begin with."""
        driving = [i for i, child in enumerate(self.schedulers) if child.drives_momentum]
        before = [i for i in driving if i <= number and (i == number or self._start(i) < self._start(i + 1))]
        if not before:
            return self.schedulers[driving[0]]._momentum(0.0)
        last = before[-1]
        if last == number:
            return self.schedulers[number]._momentum(step - self._start(number))
        return self.schedulers[last]._momentum(float(self._start(last + 1) - 1 - self._start(last)))

    def _updates(self, step: Float64) -> Updates:
        parts = [np.empty(len(step)) for _ in Updates._fields]
        numbers = np.searchsorted(np.asarray(self.milestones, dtype=np.float64), step, side="right")
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            local = step[mine] - self._start(number)
            for part, values in zip(parts, self._updates_in(number, local), strict=True):
                part[mine] = values
        return Updates(*parts)

    def _updates_in(self, number: int, step: Float64) -> Updates:
        child = self.schedulers[number]
        updates = child._updates(step)
        if number and not step[0]:  # at its milestone torch sets the closed form
            low, high = np.broadcast_to(child._rate(step[:1], np.array([[0.0], [1.0]])), (2, 1))[:, 0]
            updates.keep[0], updates.slope[0], updates.offset[0] = 0.0, high - low, low
        return updates


@value_class
class ChainedScheduler(Schedule):
    """All schedules at once: torch's ``ChainedScheduler``.

    At each step every schedule in turn acts on the rate that the one before it has left, beginning with the last
    step's rate: those that multiply (``StepLR``, ``MultiStepLR``, ``ConstantLR``, ``LinearLR``,
    ``ExponentialLR``, ``PolynomialLR``, ``MultiplicativeLR``, and here ``InverseSqrt``, ``WSD``, factor tables and
    factor functions) multiply it, ``CosineAnnealingLR`` pulls it towards ``eta_min``, and all others set it outright.

    Where all multiply, the rate is ``lr`` times the product of their factors, in closed form; torch's ``step()``
    drifts from that. With any other it follows torch's recursion, cumulated once and kept, for whole steps only.

    Args:
        schedulers: The schedules, in order; not ``ReduceLROnPlateau``.
    """

    schedulers: Children

    def __post_init__(self) -> None:
        super().__post_init__()
        _adopt_all(self)
        if self.every_step and not self._multiplies:
            raise SpecError(
                "ChainedScheduler(every_step=True): only schedules that multiply the rate can be chained between "
                "whole epochs; the others are defined from one step to the next. Leave every_step out."
            )

    @property
    def is_bound(self) -> bool:
        """Whether every schedule inside knows its length."""
        return all(child.is_bound for child in self.schedulers)

    @property
    def drives_momentum(self) -> bool:
        """Whether a schedule inside moves the momentum too."""
        return any(child.drives_momentum for child in self.schedulers)

    def bound(self, total: float) -> ChainedScheduler:
        """This schedule with missing lengths taken from the run."""
        children = tuple(child.bound(total) for child in self.schedulers)
        return self if children == self.schedulers else replace(self, schedulers=children)

    @property
    def _multiplies(self) -> bool:
        return all(child._multiplies for child in self.schedulers)

    def _rate(self, step: Value, lr: Value) -> Value:
        if not self._multiplies:
            return self._cumulated_rate(step, lr)
        factor: Any = 1.0
        for child in self.schedulers:
            factor = factor * child._rate(step, 1.0)
        return lr * factor

    def _momentum(self, step: Value) -> Value:
        return [child for child in self.schedulers if child.drives_momentum][-1]._momentum(step)

    def _updates(self, step: Float64) -> Updates:
        keep, slope, offset = np.ones(len(step)), np.zeros(len(step)), np.zeros(len(step))
        for child in self.schedulers:
            its = child._updates(step)
            keep = its.keep * keep
            slope = its.keep * slope + its.slope
            offset = its.keep * offset + its.offset
        return Updates(keep, slope, offset)

    def _cumulated_rate(self, step: Value, lr: Value) -> Value:
        slope, offset = self._known.at_least(self._last_cumulated(step) + 1, self._ahead)
        if type(step) is float:
            return slope.item(int(step)) * lr + offset.item(int(step))
        index = step.astype(np.int64)
        return slope[index] * lr + offset[index]

    @cached_property
    def _known(self) -> Kept:
        """The chained rate at every step as ``slope * lr + offset``: (2, steps)."""
        return Kept(self._grown(0, 1, 1.0, 0.0))

    def _ahead(self, start: int, stop: int) -> Float64:
        slope, offset = self._known.values[:, start - 1].tolist()
        try:
            return self._grown(start, stop + min(start, _AHEAD), slope, offset)
        except SpecError:  # a schedule that ends may not be asked ahead
            return self._grown(start, stop, slope, offset)

    def _grown(self, start: int, stop: int, slope: float, offset: float) -> Float64:
        with np.errstate(all="ignore"):
            updates = self._updates(np.arange(start, stop, dtype=np.float64))
        slopes, offsets = [], []
        for keep, rise, shift in zip(*(part.tolist() for part in updates), strict=True):
            slope = keep * slope + rise
            offset = keep * offset + shift
            slopes.append(slope)
            offsets.append(offset)
        return np.array([slopes, offsets])
