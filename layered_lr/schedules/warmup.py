"""Schedules that begin with a warm-up, under the names that users of transformers and timm look for."""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import TYPE_CHECKING, Literal

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Fraction, Length, PositiveCount
from layered_lr.schedules.arithmetic import Value, at_least, one_plus_cos, piecewise, raised, square_root
from layered_lr.schedules.base import Child, FactorSchedule, Schedule
from layered_lr.schedules.composed import adopted
from layered_lr.schedules.decay import Constant
from layered_lr.validation import Flag, NonNegative, value_class

if TYPE_CHECKING:
    from layered_lr.schedules.reaction import Reaction

_Shape = Literal["linear", "cosine", "1-sqrt"]


@value_class
class Warmup(Schedule):
    """A rise to the rate with which any other schedule begins, then that schedule from its own step 0.

    For ``step < warmup_steps`` the rate is ``then(0, lr)`` times a factor f of ``part = step / warmup_steps``:
    ``"linear"`` f = s + (1 - s) * part, ``"exponential"`` f = s ** (1 - part), ``"constant"`` f = s, where s is
    ``start_factor``. From ``warmup_steps`` on it is ``then(step - warmup_steps, lr)``: ``then`` sees the group's
    own ``lr``, its step 0 is at ``warmup_steps``, and no step of it is left out.

    Before a ``ReduceLROnPlateau`` the factor multiplies the rate that was decided so far.

    Args:
        warmup_steps: Length of the rise in steps (or epochs, then not necessarily whole).
        then: What follows.
        start_factor: Factor at step 0, 0 to 1. 0 where left out with ``"linear"`` (as in transformers); the
            other modes need it, ``"exponential"`` above 0.
        mode: Shape of the rise.
    """

    warmup_steps: Length
    then: Child = field(default_factory=Constant)
    start_factor: Fraction | None = None
    mode: Literal["linear", "exponential", "constant"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_factor is None and self.mode != "linear":
            raise SpecError(f"Warmup(mode={self.mode!r}) needs start_factor, the factor at step 0.")
        if self.start_factor == 0 and self.mode == "exponential":
            raise SpecError("Warmup(mode='exponential', start_factor=0): start_factor must be > 0 to rise from it.")
        if self.then.reaction(0.0) is None:
            object.__setattr__(self, "then", adopted(self, self.then))

    @property
    def is_bound(self) -> bool:
        """Whether the schedule that follows knows its length."""
        return self.then.is_bound

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule that follows moves the momentum too; it stays at its first until then."""
        return self.then.drives_momentum

    def bound(self, total: float) -> Warmup:
        """This schedule with a length missing in ``then`` taken from what the warm-up leaves of the run."""
        then = self.then.bound(max(1, total - self.warmup_steps))
        return self if then == self.then else replace(self, then=then)

    def reaction(self, lr: float) -> Reaction | None:
        """What decides the rate while training, where ``then`` is such a schedule."""
        return self.then.reaction(lr)

    @property
    def _multiplies(self) -> bool:
        return self.then._multiplies

    def _rate(self, step: Value, lr: Value) -> Value:
        return piecewise(step, lr, (self.warmup_steps,), self._rate_in)

    def _rate_in(self, number: int, step: Value, lr: Value) -> Value:
        if number:
            return self.then._rate(step - self.warmup_steps, lr)
        return self.then._rate(0.0 if type(step) is float else step * 0, lr) * self._factor(step)

    def _factor(self, step: Value) -> Value:
        low = self.start_factor or 0.0
        if self.mode == "linear":
            return low + (1 - low) * step / self.warmup_steps
        if self.mode == "exponential":
            return raised(low, 1 - step / self.warmup_steps)
        return low

    def _momentum(self, step: Value) -> Value:
        return self.then._momentum(at_least(step - self.warmup_steps, 0.0))


@value_class
class CosineDecay(Schedule):
    """A straight rise, then a cosine down to the floor at the end of the run, where it stays.

    ``step < warmup_steps``: ``warmup_lr + (lr - warmup_lr) * step / warmup_steps``. After it, with ``low`` the floor:
    ``low + (lr - low) * (1 + cos(2 pi num_cycles p)) / 2``, held at p = 1, where
    ``p = (step - warmup_steps) / (total_steps - warmup_steps)``, without ``warmup_prefix`` ``p = step / total_steps``.

    transformers: ``get_cosine_schedule_with_warmup(num_warmup_steps=w, num_training_steps=T)`` is
    ``CosineDecay(T, w)``; ``get_cosine_with_min_lr_schedule_with_warmup`` adds ``min_lr`` (there in proportion to
    the optimizer's ``lr``) or ``min_lr_rate``. After T transformers' cosine rises again.
    timm: ``CosineLRScheduler(t_initial=T, lr_min=m, warmup_t=w, warmup_lr_init=a)`` is
    ``CosineDecay(T, w, min_lr=m, warmup_lr=a, warmup_prefix=False)``, and with its ``warmup_prefix=True``
    ``CosineDecay(T + w, w, min_lr=m, warmup_lr=a)``. In a chain it sets the rate, whatever it finds.

    Args:
        total_steps: Length in steps (or epochs), the warm-up included; the run's where left out.
        warmup_steps: Length of the rise.
        min_lr: The floor, absolute, before ``lr_scale``.
        min_lr_rate: The floor as a part of the group's ``lr``, instead of ``min_lr``.
        warmup_lr: The rate at step 0 of a warm-up, absolute, before ``lr_scale``.
        num_cycles: Waves of the cosine: 0.5 goes down once.
        warmup_prefix: Whether the cosine begins where the warm-up ends, or has run beneath it.
    """

    total_steps: Length | None = None
    warmup_steps: Length = 0
    min_lr: NonNegative = 0.0
    min_lr_rate: Fraction | None = None
    warmup_lr: NonNegative = 0.0
    num_cycles: NonNegative = 0.5
    warmup_prefix: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_lr and self.min_lr_rate is not None:
            raise SpecError(
                f"CosineDecay(min_lr={self.min_lr:g}, min_lr_rate={self.min_lr_rate:g}): give one of the two."
            )
        if self.total_steps is not None and not 0 < self.total_steps >= self.warmup_steps:
            raise SpecError(
                f"CosineDecay(total_steps={self.total_steps}, warmup_steps={self.warmup_steps}): total_steps must be "
                "> 0 and hold the warm-up."
            )

    @property
    def is_bound(self) -> bool:
        """Whether the length is known."""
        return self.total_steps is not None

    def bound(self, total: float) -> CosineDecay:
        """This schedule with ``total_steps`` taken from the run where it was left out."""
        return self if self.is_bound else replace(self, total_steps=total)

    def _rate(self, step: Value, lr: Value) -> Value:
        if self.total_steps is None:
            raise self._needs("total_steps")
        return piecewise(step, lr, (self.warmup_steps, self.total_steps), self._rate_in)

    def _rate_in(self, number: int, step: Value, lr: Value) -> Value:
        if not number:
            return self.warmup_lr + step * ((lr - self.warmup_lr) / self.warmup_steps)
        since = self.warmup_steps if self.warmup_prefix else 0
        part = (step - since) / ((self.total_steps or since) - since) if number == 1 else 1.0
        low = self.min_lr if self.min_lr_rate is None else lr * self.min_lr_rate
        return low + (lr - low) * (one_plus_cos(math.pi * (2 * self.num_cycles) * part) / 2)


@value_class
class InverseSqrt(FactorSchedule):
    """A straight rise from 0, then ``lr / sqrt((step + timescale - warmup_steps) / timescale)``.

    transformers' ``get_inverse_sqrt_schedule``; with ``timescale = warmup_steps`` the decay of "Attention is all
    you need" (https://arxiv.org/abs/1706.03762). It needs no length of the run. In a chain it multiplies the
    rate that it finds.

    Args:
        warmup_steps: Length of the rise in steps (or epochs).
        timescale: Steps in which the rate falls to 1 / sqrt(2) of ``lr``; ``warmup_steps``, or 10,000 where that
            is 0, when left out.
    """

    warmup_steps: Length
    timescale: PositiveCount | None = None

    def _factor(self, step: Value) -> Value:
        return piecewise(step, 0.0, (self.warmup_steps,), self._factor_in)

    def _factor_in(self, number: int, step: Value, _: Value) -> Value:
        if not number:
            return step / self.warmup_steps
        scale = self.timescale or self.warmup_steps or 10_000
        return 1.0 / square_root((step + (scale - self.warmup_steps)) / scale)


@value_class
class WSD(FactorSchedule):
    """Warm-up, stable, decay: transformers' ``get_wsd_schedule`` (MiniCPM, https://arxiv.org/abs/2404.06395).

    ``lr * (min_lr_ratio + (1 - min_lr_ratio) * f)``, where over the warm-up f rises from 0 to 1 as ``p``
    (``"linear"``), ``(1 - cos(pi p)) / 2`` (``"cosine"``) or ``1 - sqrt(1 - p)`` (``"1-sqrt"``), then is 1, and
    over the last ``decay_steps`` falls as ``1 - p``, ``(1 + cos(2 pi num_cycles p)) / 2`` or ``1 - sqrt(p)``; after
    that the rate stays at ``lr * min_lr_ratio``. In a chain it multiplies the rate that it finds.

    Args:
        warmup_steps: Length of the rise in steps (or epochs).
        decay_steps: Length of the fall.
        total_steps: Length of all three; the run's where neither it nor ``stable_steps`` is given.
        stable_steps: Length of the middle, instead of ``total_steps``.
        warmup_type: Shape of the rise.
        decay_type: Shape of the fall.
        min_lr_ratio: Floor as a part of ``lr``, 0 to 1; the rise begins there too.
        num_cycles: Waves of a cosine fall: 0.5 goes down once.
    """

    warmup_steps: Length
    decay_steps: Length
    total_steps: Length | None = None
    stable_steps: Length | None = None
    warmup_type: _Shape = "linear"
    decay_type: _Shape = "cosine"
    min_lr_ratio: Fraction = 0.0
    num_cycles: NonNegative = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_steps is not None and self.stable_steps is not None:
            raise SpecError(
                f"WSD(total_steps={self.total_steps}, stable_steps={self.stable_steps}): give one of the two; the "
                "other follows."
            )
        if self.total_steps is not None and self.total_steps < self.warmup_steps + self.decay_steps:
            raise SpecError(
                f"WSD(warmup_steps={self.warmup_steps}, decay_steps={self.decay_steps}, "
                f"total_steps={self.total_steps}): total_steps must hold the warm-up and the decay."
            )

    @property
    def is_bound(self) -> bool:
        """Whether the length is known."""
        return self.total_steps is not None or self.stable_steps is not None

    def bound(self, total: float) -> WSD:
        """This schedule with ``total_steps`` taken from the run where it was left out."""
        return self if self.is_bound else replace(self, total_steps=total)

    def _factor(self, step: Value) -> Value:
        if self.stable_steps is not None:
            start = self.warmup_steps + self.stable_steps
        elif self.total_steps is not None:
            start = self.total_steps - self.decay_steps
        else:
            raise self._needs("total_steps")
        return piecewise(step, float(start), (self.warmup_steps, start, start + self.decay_steps), self._factor_in)

    def _factor_in(self, number: int, step: Value, start: float) -> Value:
        if number == 1:
            return 1.0
        if number == 3:
            return self.min_lr_ratio
        part = step / self.warmup_steps if number == 0 else (step - start) / self.decay_steps
        shape = _risen(self.warmup_type, part) if number == 0 else self._fallen(part)
        return at_least(shape * (1.0 - self.min_lr_ratio) + self.min_lr_ratio, 0.0)

    def _fallen(self, part: Value) -> Value:
        if self.decay_type == "linear":
            return 1.0 - part
        if self.decay_type == "cosine":
            return 0.5 * one_plus_cos(math.pi * self.num_cycles * 2.0 * part)
        return 1.0 - square_root(part)


def _risen(kind: str, part: Value) -> Value:
    if kind == "linear":
        return part
    if kind == "cosine":
        return 0.5 * (2.0 - one_plus_cos(math.pi * part))
    return 1.0 - square_root(1.0 - part)
