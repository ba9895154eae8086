"""torch's CyclicLR: the rate goes up and down between two bounds."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Fraction, PositiveCount
from layered_lr.schedules.arithmetic import Value, floor, piecewise, power
from layered_lr.schedules.base import Schedule
from layered_lr.schedules.reference import UserFunction, evaluate
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class CyclicLR(Schedule):
    """``base_lr + (max_lr - base_lr) * triangle(step) * scale``: torch's ``CyclicLR``.

    Cyclical learning rates (https://arxiv.org/abs/1506.01186): ``triangle`` rises from 0 to 1 over
    ``step_size_up`` and falls back to 0 over ``step_size_down``. ``scale`` is 1 (``"triangular"``), half as large in
    each next cycle (``"triangular2"``), or ``gamma ** step`` (``"exp_range"``).

    The group's own ``lr`` is not used: ``base_lr`` and ``max_lr`` say the rates, and ``lr_scale`` multiplies them. In a
    ``ChainedScheduler`` it sets the rate, whatever it was, as in torch. torch's ``"triangular2"`` overflows at cycle
    1025; here the scale goes on towards 0.

    Args:
        base_lr: Lower bound, the rate at step 0.
        max_lr: Upper bound, >= ``base_lr`` (torch does not check this).
        step_size_up: Steps (or epochs) of the rising half, >= 1.
        step_size_down: Steps (or epochs) of the falling half; None is ``step_size_up``.
        mode: One of the three forms of ``scale``; ignored if ``scale_fn`` is given.
        gamma: Base of ``"exp_range"``, >= 0.
        scale_fn: The user's own ``scale``, or its import path ``"package.module:name"``.
        scale_mode: What ``scale_fn`` takes: the number of the ``"cycle"``, from 1, or the step (``"iterations"``).
        cycle_momentum: Whether the momentum falls from ``max_momentum`` to ``base_momentum`` while the rate rises.
        base_momentum: Lowest momentum (or first beta), 0 to 1.
        max_momentum: Highest momentum (or first beta), 0 to 1.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.CyclicLR(base_lr=0.0, max_lr=0.4, step_size_up=2, mode="triangular2")
        >>> schedule([0, 1, 2, 3, 4, 5, 6], lr=0.1)
        array([0. , 0.2, 0.4, 0.2, 0. , 0.1, 0.2])
        >>> schedule.momentum([0, 2])
        array([0.9, 0.8])
    """

    base_lr: NonNegative
    max_lr: NonNegative
    step_size_up: PositiveCount = 2000
    step_size_down: PositiveCount | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: NonNegative = 1.0
    scale_fn: UserFunction | None = field(default=None)
    scale_mode: Literal["cycle", "iterations"] = "cycle"
    cycle_momentum: Flag = True
    base_momentum: Fraction = 0.8
    max_momentum: Fraction = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_lr < self.base_lr:
            raise SpecError(f"CyclicLR(base_lr={self.base_lr:g}, max_lr={self.max_lr:g}): max_lr must be >= base_lr.")

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule changes the momentum too: ``cycle_momentum``."""
        return self.cycle_momentum

    def _rate(self, step: Value, lr: Value) -> Value:
        return self.base_lr + (self.max_lr - self.base_lr) * self._triangle(step) * self._scale(step)

    def _momentum(self, step: Value) -> Value:
        depth = (self.max_momentum - self.base_momentum) * self._triangle(step)
        return self.max_momentum - depth * self._scale(step)

    def _total(self) -> float:
        down = self.step_size_up if self.step_size_down is None else self.step_size_down
        return float(self.step_size_up + down)

    def _triangle(self, step: Value) -> Value:
        turns = 1.0 + step / self._total()
        return piecewise(turns - floor(turns), None, (self.step_size_up / self._total(),), self._side, side="left")

    def _side(self, falling: int, place: Value, _: Value) -> Value:
        top = self.step_size_up / self._total()
        return (place - 1) / (top - 1) if falling else place / top

    def _scale(self, step: Value) -> Value:
        if self.scale_fn is None and self.mode == "triangular":
            return 1.0
        if self.scale_fn is None and self.mode == "exp_range":
            return power(self.gamma, step)
        cycle = floor(1 + step / self._total())
        if self.scale_fn is None:
            return power(0.5, cycle - 1)
        argument = cycle if self.scale_mode == "cycle" else step
        return evaluate(f"CyclicLR(scale_fn={self.scale_fn!r})", self.scale_fn, argument)
