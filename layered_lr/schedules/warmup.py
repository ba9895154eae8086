"""Schedules that begin with a warm-up; what transformers and timm call them is in each docstring."""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import TYPE_CHECKING, Literal

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Fraction, Length, PositiveCount
from layered_lr.schedules.arithmetic import Value, maximum, one_plus_cos, piecewise, raise_to, square_root
from layered_lr.schedules.base import Child, FactorSchedule, Schedule
from layered_lr.schedules.composed import adopt_unit
from layered_lr.schedules.decay import Constant
from layered_lr.validation import Flag, NonNegative, value_class

if TYPE_CHECKING:
    from layered_lr.schedules.reaction import Reaction

_Shape = Literal["linear", "cosine", "1-sqrt"]


@value_class
class Warmup(Schedule):
    """A rise to the first rate of any other schedule, then that schedule from its own step 0.

    For ``step < warmup_steps`` the rate is ``then(0, lr)`` times a factor f. With ``part = step / warmup_steps`` and
    s = ``start_factor`` it is: ``"linear"`` f = s + (1 - s) * part, ``"exponential"`` f = s ** (1 - part),
    ``"constant"`` f = s. From ``warmup_steps`` on the rate is ``then(step - warmup_steps, lr)``, so that no step of
    ``then`` is left out.

    Before a ``ReduceLROnPlateau`` the factor multiplies the rate that is decided so far.

    Args:
        warmup_steps: Length of the rise in steps or epochs; half an epoch is allowed.
        then: The schedule that follows.
        start_factor: Factor at step 0, 0 to 1. None is 0 with ``"linear"``, as in transformers. The other modes need a
            value, ``"exponential"`` one above 0.
        mode: Shape of the rise.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.Warmup(warmup_steps=2, then=ll.ExponentialLR(0.5))
        >>> schedule([0, 1, 2, 3, 4], lr=0.8)
        array([0. , 0.4, 0.8, 0.4, 0.2])
    """

    warmup_steps: Length
    then: Child = field(default_factory=Constant)
    start_factor: Fraction | None = None
    mode: Literal["linear", "exponential", "constant"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_factor is None and self.mode != "linear":
            raise SpecError(f"Warmup(mode={self.mode!r}) needs start_factor=..., the factor at step 0, from 0 to 1.")
        if self.start_factor == 0 and self.mode == "exponential":
            raise SpecError("Warmup(mode='exponential', start_factor=0): an exponential rise needs start_factor > 0.")
        if self.then.start_reaction(0.0) is None:
            object.__setattr__(self, "then", adopt_unit(self, self.then))

    @property
    def is_bound(self) -> bool:
        """Whether the schedule that follows knows its length."""
        return self.then.is_bound

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule that follows changes the momentum too; before that, its first momentum holds."""
        return self.then.drives_momentum

    def bind(self, total: float) -> Warmup:
        """Return this schedule with a missing length of ``then`` taken from the rest of the run after the warm-up."""
        then = self.then.bind(max(1, total - self.warmup_steps))
        return self if then == self.then else replace(self, then=then)

    def start_reaction(self, lr: float) -> Reaction | None:
        """Return a new ``Reaction`` of ``then``; None if all rates are known beforehand."""
        return self.then.start_reaction(lr)

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
            return raise_to(low, 1 - step / self.warmup_steps)
        return low

    def _momentum(self, step: Value) -> Value:
        return self.then._momentum(maximum(step - self.warmup_steps, 0.0))


@value_class
class CosineDecay(Schedule):
    """A straight rise, then a cosine down to the floor at the end of the run, where it stays.

    For ``step < warmup_steps`` the rate is ``warmup_lr + (lr - warmup_lr) * step / warmup_steps``. After that it is
    ``low + (lr - low) * (1 + cos(2 pi num_cycles p)) / 2``, where ``low`` is the floor and
    ``p = (step - warmup_steps) / (total_steps - warmup_steps)``, at most 1. Without ``warmup_prefix``,
    ``p = step / total_steps``. In a ``ChainedScheduler`` it sets the rate, whatever it was.

    In transformers, ``get_cosine_schedule_with_warmup(num_warmup_steps=w, num_training_steps=T)`` is
    ``CosineDecay(T, w)``. ``get_cosine_with_min_lr_schedule_with_warmup`` adds ``min_lr_rate``, or ``min_lr`` (there in
    proportion to the optimizer's ``lr``). After step T the cosine of transformers rises again; this one stays.

    In timm, ``CosineLRScheduler(t_initial=T, lr_min=m, warmup_t=w, warmup_lr_init=a)`` is
    ``CosineDecay(T, w, min_lr=m, warmup_lr=a, warmup_prefix=False)``; with timm's ``warmup_prefix=True`` it is
    ``CosineDecay(T + w, w, min_lr=m, warmup_lr=a)``.

    Args:
        total_steps: Length in steps (or epochs), with the warm-up; None is the length of the run.
        warmup_steps: Length of the rise.
        min_lr: The floor, as a rate before ``lr_scale``.
        min_lr_rate: The floor as a part of the group's ``lr``, instead of ``min_lr``.
        warmup_lr: The rate at step 0 of a warm-up, before ``lr_scale``.
        num_cycles: Number of waves of the cosine; 0.5 goes down once.
        warmup_prefix: Whether the cosine begins at the end of the warm-up (True) or at step 0 (False).

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.CosineDecay(total_steps=6, warmup_steps=2, min_lr=0.01)
        >>> schedule([0, 1, 2, 4, 6, 7], lr=0.1).round(3)
        array([0.   , 0.05 , 0.1  , 0.055, 0.01 , 0.01 ])
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
                f"CosineDecay(min_lr={self.min_lr:g}, min_lr_rate={self.min_lr_rate:g}): give only one of them."
            )
        if self.total_steps is not None and not 0 < self.total_steps >= self.warmup_steps:
            raise SpecError(
                f"CosineDecay(total_steps={self.total_steps}, warmup_steps={self.warmup_steps}): total_steps must be "
                "> 0 and at least warmup_steps."
            )

    @property
    def is_bound(self) -> bool:
        """Whether the total length is known."""
        return self.total_steps is not None

    def bind(self, total: float) -> CosineDecay:
        """Return this schedule with a missing ``total_steps`` taken from the length of the run.

        Raises:
            SpecError: The run is shorter than the warm-up.
        """
        if not self.is_bound and total < self.warmup_steps:
            raise self._too_short_error(total, warmup_steps=self.warmup_steps)
        return self if self.is_bound else replace(self, total_steps=total)

    def _rate(self, step: Value, lr: Value) -> Value:
        if self.total_steps is None:
            raise self._length_error("total_steps")
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
    you need" (https://arxiv.org/abs/1706.03762). It does not need the length of the run. In a ``ChainedScheduler`` it
    multiplies the previous rate.

    Args:
        warmup_steps: Length of the rise in steps (or epochs).
        timescale: Steps in which the rate falls to 1 / sqrt(2) of ``lr``. None is ``warmup_steps``, or 10,000 without a
            warm-up.

    Example:
        >>> import layered_lr as ll
        >>> ll.InverseSqrt(warmup_steps=4)([0, 2, 4, 16], lr=0.8)
        array([0. , 0.4, 0.8, 0.4])
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

    The rate is ``lr * (min_lr_ratio + (1 - min_lr_ratio) * f)``. Over the warm-up, f rises from 0 to 1 as ``p``
    (``"linear"``), ``(1 - cos(pi p)) / 2`` (``"cosine"``) or ``1 - sqrt(1 - p)`` (``"1-sqrt"``), where p is the part of
    the warm-up that is over. Then f is 1. Over the last ``decay_steps`` it falls as ``1 - p``,
    ``(1 + cos(2 pi num_cycles p)) / 2`` or ``1 - sqrt(p)``. After that the rate stays at ``lr * min_lr_ratio``. In a
    ``ChainedScheduler`` it multiplies the previous rate.

    Args:
        warmup_steps: Length of the rise in steps (or epochs).
        decay_steps: Length of the fall.
        total_steps: Length of all three parts. If it and ``stable_steps`` are None, it is the length of the run.
        stable_steps: Length of the middle part, instead of ``total_steps``.
        warmup_type: Shape of the rise.
        decay_type: Shape of the fall.
        min_lr_ratio: Floor as a part of ``lr``, 0 to 1; the rise begins there too.
        num_cycles: Number of waves of a cosine fall; 0.5 goes down once.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.WSD(warmup_steps=2, decay_steps=2, total_steps=6, decay_type="linear")
        >>> schedule([0, 1, 2, 3, 4, 5, 6], lr=0.8)
        array([0. , 0.4, 0.8, 0.8, 0.8, 0.4, 0. ])
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
                f"WSD(total_steps={self.total_steps}, stable_steps={self.stable_steps}): give only one of them; the "
                "other follows from it."
            )
        if self.total_steps is not None and self.total_steps < self.warmup_steps + self.decay_steps:
            raise SpecError(
                f"WSD(warmup_steps={self.warmup_steps}, decay_steps={self.decay_steps}, "
                f"total_steps={self.total_steps}): total_steps must be at least warmup_steps + decay_steps."
            )

    @property
    def is_bound(self) -> bool:
        """Whether the total length is known."""
        return self.total_steps is not None or self.stable_steps is not None

    def bind(self, total: float) -> WSD:
        """Return this schedule with a missing ``total_steps`` taken from the length of the run.

        Raises:
            SpecError: The run is shorter than the warm-up and the decay.
        """
        if not self.is_bound and total < self.warmup_steps + self.decay_steps:
            raise self._too_short_error(total, warmup_steps=self.warmup_steps, decay_steps=self.decay_steps)
        return self if self.is_bound else replace(self, total_steps=total)

    def _factor(self, step: Value) -> Value:
        if self.stable_steps is not None:
            start = self.warmup_steps + self.stable_steps
        elif self.total_steps is not None:
            start = self.total_steps - self.decay_steps
        else:
            raise self._length_error("total_steps")
        return piecewise(step, float(start), (self.warmup_steps, start, start + self.decay_steps), self._factor_in)

    def _factor_in(self, number: int, step: Value, start: float) -> Value:
        if number == 1:
            return 1.0
        if number == 3:
            return self.min_lr_ratio
        part = step / self.warmup_steps if number == 0 else (step - start) / self.decay_steps
        shape = _rise(self.warmup_type, part) if number == 0 else self._fall(part)
        return maximum(shape * (1.0 - self.min_lr_ratio) + self.min_lr_ratio, 0.0)

    def _fall(self, part: Value) -> Value:
        if self.decay_type == "linear":
            return 1.0 - part
        if self.decay_type == "cosine":
            return 0.5 * one_plus_cos(math.pi * self.num_cycles * 2.0 * part)
        return 1.0 - square_root(part)


def _rise(kind: str, part: Value) -> Value:
    if kind == "linear":
        return part
    if kind == "cosine":
        return 0.5 * (2.0 - one_plus_cos(math.pi * part))
    return 1.0 - square_root(1.0 - part)
