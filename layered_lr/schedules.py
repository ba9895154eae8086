"""Learning-rate schedules: frozen dataclasses that are data and vectorised functions of the step, in float64.

Names, arguments and meaning are torch's. A schedule knows nothing of groups or frameworks: a plan asks it
for rates, and ``lr_scale`` multiplies what it answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from layered_lr.validation import NonNegative, PositiveInt, value_class

Float64: TypeAlias = NDArray[np.float64]
Unit: TypeAlias = Literal["step", "epoch"]


@value_class
class Schedule(ABC):
    """A learning rate as a function of the step, in closed form.

    Args:
        unit: What the schedule counts: optimizer updates (``"step"``, the default) or ``"epoch"`` s.
    """

    unit: Unit = field(default="step", kw_only=True)

    @overload
    def __call__(self, step: int, lr: float) -> float: ...
    @overload
    def __call__(self, step: NDArray[Any], lr: float) -> Float64: ...
    def __call__(self, step: Any, lr: float) -> Any:
        """The rate at ``step`` for a group whose own rate is ``lr``.

        Args:
            step: 0-based count in ``unit`` s: one number, or an array of them of any shape.
            lr: The group's rate, dimensionless, per update.

        Returns:
            A float for one step, a float64 array of the shape of ``step`` for an array.
        """
        rates = self._rate(np.asarray(step, dtype=np.float64), float(lr))
        return float(rates) if np.ndim(step) == 0 else np.broadcast_to(rates, np.shape(step))

    @abstractmethod
    def _rate(self, step: Float64, lr: float) -> Float64 | float:
        """The rate at each of the steps; may be a single number where it is the same at all of them."""


@value_class
class Constant(Schedule):
    """The group's ``lr``, from the first step to the last."""

    def _rate(self, step: Float64, lr: float) -> float:
        return lr


@value_class
class StepLR(Schedule):
    """``lr * gamma ** (step // step_size)``: torch's ``StepLR`` in its closed form.

    torch's own chained form multiplies by ``gamma`` at each boundary and drifts from this by one rounding
    error per boundary.

    Args:
        step_size: Steps (or epochs) between two decays, >= 1.
        gamma: Factor of one decay, >= 0.
    """

    step_size: PositiveInt
    gamma: NonNegative = 0.1

    def _rate(self, step: Float64, lr: float) -> Float64:
        with np.errstate(over="ignore"):  # a plan refuses a rate that is not finite
            return lr * np.power(self.gamma, np.floor_divide(step, self.step_size)) if lr else np.zeros_like(step)
