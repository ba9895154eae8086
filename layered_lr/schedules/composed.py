"""Schedules that are made of other schedules: one after the other, or all together."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cached_property

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Counts
from layered_lr.schedules.arithmetic import Value, piecewise
from layered_lr.schedules.base import Children, Schedule, Updates
from layered_lr.schedules.cyclic import CyclicLR
from layered_lr.schedules.decay import check_ascending
from layered_lr.schedules.onecycle import OneCycleLR
from layered_lr.schedules.recurrences import GrowingTable
from layered_lr.validation import value_class

_AHEAD = 1024


def _holds(schedule: Schedule, *kinds: type[Schedule]) -> bool:
    """Whether a schedule, or one inside it, is of one of these kinds."""
    return isinstance(schedule, kinds) or any(_holds(child, *kinds) for child in getattr(schedule, "schedulers", ()))


def adopt_unit(parent: Schedule, child: Schedule) -> Schedule:
    """Return ``child`` with the unit of ``parent``.

    Raises:
        SpecError: The child was told to count epochs, and its parent counts something else.
    """
    if (child.unit, child.every_step) == (parent.unit, parent.every_step):
        return child
    if child.unit == "epoch" and (parent.unit != "epoch" or child.every_step):
        wanted = "unit='epoch', every_step=True" if child.every_step else "unit='epoch'"
        raise SpecError(
            f"{type(parent).__name__}: the {type(child).__name__} inside it counts epochs, but the schedule around it "
            f"does not count the same. Give {wanted} to the {type(parent).__name__}, and its lengths in epochs."
        )
    return replace(child, unit=parent.unit, every_step=parent.every_step)


def _adopt_all(parent: SequentialLR | ChainedScheduler) -> None:
    kind = type(parent).__name__
    if not parent.schedulers:
        raise SpecError(f"{kind}(schedulers=[]): schedulers must hold at least one schedule.")
    for number, child in enumerate(parent.schedulers):
        if child.start_reaction(0.0) is not None:
            raise SpecError(
                f"{kind}: schedulers[{number}] is a {type(child).__name__}, whose rate is decided during training. "
                "It cannot be combined with other schedules (in torch neither). Use Warmup(steps, then=...) to put a "
                "warm-up before it."
            )
    object.__setattr__(parent, "schedulers", tuple(adopt_unit(parent, child) for child in parent.schedulers))


@value_class
class SequentialLR(Schedule):
    """One schedule after the other: torch's ``SequentialLR``.

    Each schedule begins at its milestone, with the group's own ``lr``, and counts its steps from there:
    ``schedulers[i](step - milestones[i - 1], lr)``.

    This is torch's closed form. torch itself differs in two cases: a ``MultiplicativeLR`` that is not the first goes on
    from the rate of the schedule before it, and a ``OneCycleLR`` or ``CyclicLR`` changes the optimizer's
    ``initial_lr`` for all schedules that are made after it.

    In a ``ChainedScheduler`` it sets the rate at each milestone; in between it does what its active schedule does.

    Args:
        schedulers: The schedules, in order. ``ReduceLROnPlateau`` is not allowed.
        milestones: The steps at which the second and each later schedule begins, ascending; one fewer than schedules.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.SequentialLR([ll.Constant(), ll.ExponentialLR(0.5)], milestones=[2])
        >>> schedule([0, 1, 2, 3, 4], lr=0.8)
        array([0.8, 0.8, 0.8, 0.4, 0.2])
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
        """Whether a schedule inside changes the momentum too."""
        return any(child.drives_momentum for child in self.schedulers)

    def bind(self, total: float) -> SequentialLR:
        """Return this schedule with each missing length taken from that schedule's part of the run."""
        ends = (*self.milestones, max(total, self._start(len(self.schedulers) - 1)))
        children = tuple(
            child.bind(max(1, end - self._start(number)))
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
        """Return the active schedule's momentum.

        If the active schedule does not change the momentum, it stays at the last value of the schedule before that did.
        If there is none before, it is already the first value of the one that comes.
        """
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
        if number and not step[0]:  # at a milestone torch sets the rate of the closed form
            low, high = np.broadcast_to(child._rate(step[:1], np.array([[0.0], [1.0]])), (2, 1))[:, 0]
            updates.keep[0], updates.slope[0], updates.offset[0] = 0.0, high - low, low
        return updates


@value_class
class ChainedScheduler(Schedule):
    """All schedules together: torch's ``ChainedScheduler``.

    Each step starts from the rate of the step before, and applies the schedules to it in order. Some multiply the rate:
    ``StepLR``, ``MultiStepLR``, ``ConstantLR``, ``LinearLR``, ``ExponentialLR``, ``PolynomialLR``,
    ``MultiplicativeLR``, ``InverseSqrt``, ``WSD``, and tables and functions with ``factor=True``.
    ``CosineAnnealingLR`` moves the rate towards ``eta_min``. All others set the rate, whatever it was.

    A torch schedule whose factor has come to 0 (``PolynomialLR``, ``LinearLR(end_factor=0)``, ``gamma=0``) does what
    torch's does: from then on it leaves the rate as it finds it, so that a schedule that sets the rate has it alone.

    ``CyclicLR`` must stand first, and nothing that sets the rate from the group's ``lr`` may stand behind it or behind
    ``OneCycleLR``: torch changes the ``initial_lr`` that they start from.

    If all schedules multiply, the rate is ``lr`` times the product of their factors, in closed form; torch's ``step()``
    drifts from that by rounding errors. Otherwise this follows torch's recursion, for whole steps only.

    Args:
        schedulers: The schedules, in order. ``ReduceLROnPlateau`` is not allowed.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.ChainedScheduler([ll.ConstantLR(factor=0.5, total_iters=2), ll.ExponentialLR(0.5)])
        >>> schedule([0, 1, 2, 3], lr=0.8)
        array([0.4, 0.2, 0.2, 0.1])
    """

    schedulers: Children

    def __post_init__(self) -> None:
        super().__post_init__()
        _adopt_all(self)
        self._check_order()
        if self.every_step and not self._multiplies:
            raise SpecError(
                "ChainedScheduler(every_step=True): between whole epochs, only schedules that multiply the rate can be "
                "chained; the others are defined from one whole step to the next. Leave every_step out."
            )

    def _check_order(self) -> None:
        """Refuse orders in which a schedule starts from another rate in torch, because of one made before it."""
        for place, child in enumerate(self.schedulers):
            behind = self.schedulers[:place]
            kind = type(child).__name__
            if behind and _holds(child, CyclicLR):
                raise SpecError(
                    f"ChainedScheduler: {kind} stands behind {type(behind[0]).__name__}; torch's CyclicLR then takes "
                    "the group's lr for its base_lr. Put the CyclicLR first."
                )
            setter = next((type(one).__name__ for one in behind if _holds(one, OneCycleLR, CyclicLR)), None)
            if setter and not child._multiplies and not isinstance(child, OneCycleLR):
                raise SpecError(
                    f"ChainedScheduler: {kind} stands behind {setter}, which in torch changes the initial_lr that "
                    f"{kind} starts from. Put {kind} before it, or leave one of them out."
                )

    @property
    def is_bound(self) -> bool:
        """Whether every schedule inside knows its length."""
        return all(child.is_bound for child in self.schedulers)

    @property
    def drives_momentum(self) -> bool:
        """Whether a schedule inside changes the momentum too."""
        return any(child.drives_momentum for child in self.schedulers)

    def bind(self, total: float) -> ChainedScheduler:
        """Return this schedule with every missing length taken from the length of the run."""
        children = tuple(child.bind(total) for child in self.schedulers)
        return self if children == self.schedulers else replace(self, schedulers=children)

    @property
    def _multiplies(self) -> bool:
        return all(child._multiplies for child in self.schedulers)

    def _rate(self, step: Value, lr: Value) -> Value:
        if not self._multiplies:
            return self._cumulated_rate(step, lr)
        factor: Value = 1.0
        for child in self.schedulers:
            factor = factor * child._rate(step, 1.0)
        return lr * factor

    def _momentum(self, step: Value) -> Value:
        return [child for child in self.schedulers if child.drives_momentum][-1]._momentum(step)

    def _updates(self, step: Float64) -> Updates:
        keep, slope, offset = np.ones(len(step)), np.zeros(len(step)), np.zeros(len(step))
        for child in self.schedulers:
            updates = child._updates(step)
            keep = updates.keep * keep
            slope = updates.keep * slope + updates.slope
            offset = updates.keep * offset + updates.offset
        return Updates(keep, slope, offset)

    def _cumulated_rate(self, step: Value, lr: Value) -> Value:
        slope, offset = self._known.extend_to(self._last_step(step) + 1, self._extend)
        if type(step) is float:
            return slope.item(int(step)) * lr + offset.item(int(step))
        index = step.astype(np.int64)
        return slope[index] * lr + offset[index]

    @cached_property
    def _known(self) -> GrowingTable:
        """The chained rate at every step is ``slope * lr + offset``; this holds both, shape (2, steps)."""
        return GrowingTable(self._follow(0, 1, 1.0, 0.0))

    def _extend(self, start: int, stop: int) -> Float64:
        slope, offset = self._known.values[:, start - 1].tolist()
        try:
            return self._follow(start, stop + min(start, _AHEAD), slope, offset)
        except SpecError:  # a schedule that ends, such as a Table, cannot be computed ahead
            return self._follow(start, stop, slope, offset)

    def _follow(self, start: int, stop: int, slope: float, offset: float) -> Float64:
        with np.errstate(all="ignore"):
            updates = self._updates(np.arange(start, stop, dtype=np.float64))
        slopes, offsets = [], []
        for keep, rise, shift in zip(*(part.tolist() for part in updates), strict=True):
            slope = keep * slope + rise
            offset = keep * offset + shift
            slopes.append(slope)
            offsets.append(offset)
        return np.array([slopes, offsets])
