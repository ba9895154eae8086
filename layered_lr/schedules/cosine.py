"""torch's cosine schedules: one that goes down and up for ever, and one that restarts at the top."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cached_property

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.schedules.arguments import MOST, PositiveCount
from layered_lr.schedules.arithmetic import Value, floor, one_plus_cos
from layered_lr.schedules.base import Schedule, Updates
from layered_lr.validation import NonNegative, value_class


@value_class
class CosineAnnealingLR(Schedule):
    """``eta_min + (lr - eta_min) * (1 + cos(pi * step / T_max)) / 2``: torch's ``CosineAnnealingLR``.

    The closed form of SGDR without restarts (https://arxiv.org/abs/1608.03983). After ``T_max`` the cosine rises
    again, as in torch. torch's ``step()`` is a recursion that drifts from this closed form, most of all near
    ``eta_min`` and after it.

    In a ``ChainedScheduler`` it moves the previous rate towards ``eta_min`` as torch's recursion does; after ``T_max``
    it adds the part of the group's own ``lr`` again.

    Args:
        T_max: Steps (or epochs) from ``lr`` down to ``eta_min``, >= 1.
        eta_min: Lowest rate, before ``lr_scale``.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.CosineAnnealingLR(T_max=4, eta_min=0.01)
        >>> schedule([0, 1, 2, 4], lr=0.1).round(4)
        array([0.1   , 0.0868, 0.055 , 0.01  ])
    """

    T_max: PositiveCount
    eta_min: NonNegative = 0.0

    def _rate(self, step: Value, lr: Value) -> Value:
        low = self.eta_min
        return low + (lr - low) * one_plus_cos(math.pi * step / self.T_max) / 2

    def _updates(self, step: Float64) -> Updates:
        low, span = self.eta_min, self.T_max
        restart = (step - 1 - span) % (2 * span) == 0
        first = step == 0
        before = np.where(restart | first, 1.0, one_plus_cos(math.pi * (step - 1) / span))
        keep = np.where(restart | first, 1.0, one_plus_cos(math.pi * step / span) / before)
        rise = np.where(restart & ~first, (1 - math.cos(math.pi / span)) / 2, 0.0)
        return Updates(keep, rise, low - low * keep - low * rise)


@value_class
class CosineAnnealingWarmRestarts(Schedule):
    """``eta_min + (lr - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2``: torch's ``CosineAnnealingWarmRestarts``.

    SGDR (https://arxiv.org/abs/1608.03983): period i lasts ``T_i = T_0 * T_mult ** i``, ``T_cur`` counts from its
    start, and each period starts at ``lr`` again. The period is found exactly, as in torch's ``step()``; torch's
    ``step(epoch)`` computes it with a logarithm and can be one period late at a restart.

    In a ``ChainedScheduler`` it sets the rate, whatever it was, as in torch.

    Args:
        T_0: Steps (or epochs) of the first period, >= 1.
        T_mult: How many times longer each period is than the one before, a whole number >= 1.
        eta_min: Lowest rate, before ``lr_scale``.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.CosineAnnealingWarmRestarts(T_0=2, T_mult=2)
        >>> schedule([0, 1, 2, 4, 6], lr=0.1).round(3)
        array([0.1 , 0.05, 0.1 , 0.05, 0.1 ])
    """

    T_0: PositiveCount
    T_mult: PositiveCount = 1
    eta_min: NonNegative = 0.0

    @cached_property
    def _periods(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        starts, lengths = [0], [self.T_0]
        while starts[-1] < MOST:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.T_mult)
        return tuple(map(float, starts)), tuple(map(float, lengths))

    def _rate(self, step: Value, lr: Value) -> Value:
        since, length = self._phase(step)
        low = self.eta_min
        return low + (lr - low) * one_plus_cos(math.pi * since / length) / 2

    def _phase(self, step: Value) -> tuple[Value, Value]:
        """Return how far each step is into its period, and how long that period is."""
        if self.T_mult == 1:
            return step - floor(step / self.T_0) * self.T_0, self.T_0
        starts, lengths = self._periods
        if type(step) is float:
            number = bisect_right(starts, step) - 1
            return step - starts[number], lengths[number]
        numbers = np.searchsorted(starts, step, side="right") - 1
        return step - np.asarray(starts)[numbers], np.asarray(lengths)[numbers]
