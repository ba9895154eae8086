"""torch's OneCycleLR: the rate rises once and then falls slowly over the rest of the run."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Literal, NamedTuple

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Fraction, PositiveCount
from layered_lr.schedules.arithmetic import Value, largest, minimum, one_plus_cos, piecewise
from layered_lr.schedules.base import Schedule
from layered_lr.validation import Flag, NonNegative, Positive, value_class


class _Phase(NamedTuple):
    start: float
    length: float
    rates: tuple[float, float]
    momenta: tuple[float, float]

    def part(self, step: Value) -> Value:
        return (step - self.start) / self.length if self.length else 1.0


@value_class
class OneCycleLR(Schedule):
    """From ``max_lr / div_factor`` up to ``max_lr``, then down to ``max_lr / div_factor / final_div_factor``.

    torch's ``OneCycleLR``: super-convergence (https://arxiv.org/abs/1708.07120). Each part of the cycle goes from a to
    b as ``b + (a - b) / 2 * (1 + cos(pi * part))`` or as ``a + (b - a) * part``.

    The group's own ``lr`` is not used: ``max_lr`` says the rates, and ``lr_scale`` multiplies them. In a
    ``ChainedScheduler`` it sets the rate, whatever it was, as in torch.

    The last rate is that of step ``total_steps - 1``. It also holds at ``total_steps``, which no update uses (torch
    extrapolates there, and with ``"linear"`` goes below 0). Later steps are an error, as in torch. If
    ``pct_start * total_steps`` is 1, torch divides by zero; here the cycle starts at ``max_lr``.

    Args:
        max_lr: Highest rate.
        total_steps: Length of the cycle in steps (or epochs). If this, ``epochs`` and ``steps_per_epoch`` are left
            out, it is the length of the run.
        epochs: Together with ``steps_per_epoch``, another way to say ``total_steps``. If both ways are used,
            ``total_steps`` wins.
        steps_per_epoch: Steps of one epoch; goes with ``epochs``.
        pct_start: The part of the cycle in which the rate rises, 0 to 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: Whether the momentum falls to ``base_momentum`` while the rate rises, and then comes back.
        base_momentum: Lowest momentum (or first beta), 0 to 1.
        max_momentum: Highest momentum (or first beta), 0 to 1.
        div_factor: ``max_lr`` divided by the first rate, > 0.
        final_div_factor: The first rate divided by the last rate, > 0.
        three_phase: Whether the fall mirrors the rise, followed by a third part from the first rate to the last.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.OneCycleLR(max_lr=0.5, total_steps=11, pct_start=0.55, anneal_strategy="linear")
        >>> schedule([0, 10], lr=0.1)
        array([2.e-02, 2.e-06])
        >>> ll.OneCycleLR(max_lr=0.5).is_bound  # a plan gives it the length of the run
        False
    """

    max_lr: NonNegative
    total_steps: PositiveCount | None = None
    epochs: PositiveCount | None = None
    steps_per_epoch: PositiveCount | None = None
    pct_start: Fraction = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: Flag = True
    base_momentum: Fraction = 0.85
    max_momentum: Fraction = 0.95
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    three_phase: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_steps is None and (self.epochs is None) != (self.steps_per_epoch is None):
            raise SpecError(
                f"OneCycleLR(epochs={self.epochs}, steps_per_epoch={self.steps_per_epoch}): give both of them, or "
                "total_steps, or none of the three to take the length of the run."
            )

    @property
    def is_bound(self) -> bool:
        """Whether the length of the cycle is known."""
        return self.total_steps is not None or self.epochs is not None

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule changes the momentum too: ``cycle_momentum``."""
        return self.cycle_momentum

    def bind(self, total: float) -> OneCycleLR:
        """Return this schedule with a missing ``total_steps`` taken from the length of the run, rounded up."""
        return self if self.is_bound else replace(self, total_steps=max(1, math.ceil(total)))

    @cached_property
    def _total(self) -> int:
        if self.total_steps is not None:
            return self.total_steps
        if self.epochs is None or self.steps_per_epoch is None:
            raise self._length_error("total_steps")
        return self.epochs * self.steps_per_epoch

    @cached_property
    def _phases(self) -> tuple[tuple[float, ...], tuple[_Phase, ...]]:
        """The phases, and before them the step at which each phase but the last ends; empty phases are skipped."""
        first = self.max_lr / self.div_factor
        low, high = self.base_momentum, self.max_momentum
        rise = self.pct_start * self._total
        ends = [rise - 1, self._total - 1]
        rates = [(first, self.max_lr), (self.max_lr, first / self.final_div_factor)]
        momenta = [(high, low), (low, high)]
        if self.three_phase:
            ends.insert(1, 2 * rise - 2)
            rates[1:] = [(self.max_lr, first), (first, first / self.final_div_factor)]
            momenta.append((high, high))
        starts = [0.0, *ends[:-1]]
        phases = map(_Phase, starts, (end - start for start, end in zip(starts, ends, strict=True)), rates, momenta)
        bounds: list[float] = []
        passed = 0.0
        for end in ends[:-1]:
            bounds.append(end if end > passed else (bounds[-1] if bounds else -1.0))
            passed = max(passed, end)
        return tuple(bounds), tuple(phases)

    def _rate(self, step: Value, lr: Value) -> Value:
        return piecewise(self._hold_last(step), 0.0, self._phases[0], self._rate_in, side="left")

    def _momentum(self, step: Value) -> Value:
        return piecewise(self._hold_last(step), 0.0, self._phases[0], self._momentum_in, side="left")

    def _hold_last(self, step: Value) -> Value:
        total = self._total
        if largest(step) > total:
            raise SpecError(
                f"OneCycleLR(total_steps={total}) was asked for {self.unit} {largest(step):g}, after the end of its "
                "cycle. Leave total_steps out to take the length of the run, or let another schedule follow it in a "
                "SequentialLR."
            )
        return minimum(step, total - 1.0)

    def _rate_in(self, number: int, step: Value, _: Value) -> Value:
        phase = self._phases[1][number]
        return self._anneal(phase.rates, phase.part(step))

    def _momentum_in(self, number: int, step: Value, _: Value) -> Value:
        phase = self._phases[1][number]
        return self._anneal(phase.momenta, phase.part(step))

    def _anneal(self, ends: tuple[float, float], part: Value) -> Value:
        start, end = ends
        if self.anneal_strategy == "linear":
            return (end - start) * part + start
        return end + (start - end) / 2.0 * one_plus_cos(math.pi * part)
