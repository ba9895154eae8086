"""The base of every schedule: a frozen dataclass, and at the same time a vectorised float64 function of the step.

Names, arguments and meaning are torch's. A schedule knows nothing about groups or frameworks: a plan asks it for rates,
and then multiplies them by ``lr_scale``.
"""

from __future__ import annotations

import functools
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Array, Float64
from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import check_lr, check_steps
from layered_lr.schedules.arithmetic import Value, largest
from layered_lr.validation import Flag, value_class

if TYPE_CHECKING:
    from layered_lr.schedules.reaction import Reaction

Unit: TypeAlias = Literal["step", "epoch"]
S = TypeVar("S", bound="Schedule")

_INFINITY = math.inf
_LARGEST = sys.float_info.max
# The most steps that a schedule keeps if it has to compute each rate from the one before.
LONGEST = 10**7
# Steps that are evaluated together: temporary arrays of this length stay in the processor's cache.
_BLOCK = 8192


class Updates(NamedTuple):
    """What one schedule does in a chain: at each step, the rate x becomes ``keep * x + slope * lr + offset``."""

    keep: Float64
    slope: Float64
    offset: Float64


@value_class
class Schedule(ABC):
    """A learning rate as a function of the step, in closed form.

    Give ``unit`` and ``every_step`` to the outermost schedule only: a schedule inside another one counts what the
    outer one counts.

    Args:
        unit: What the schedule counts: optimizer updates (``"step"``, the default) or epochs (``"epoch"``).
        every_step: With ``unit="epoch"``, the rate changes at every update and follows the fraction of the epoch, as
            with torch's ``CosineAnnealingWarmRestarts.step(epoch + i / iters)``. Otherwise it changes only at the
            start of an epoch. Schedules that change in jumps (``StepLR``, ``Table``, ...) still jump.

    Example:
        >>> import layered_lr as ll
        >>> schedule = ll.StepLR(step_size=30, gamma=0.5)
        >>> schedule(60, lr=0.1)
        0.025
        >>> schedule([0, 30, 60], lr=0.1)
        array([0.1  , 0.05 , 0.025])
        >>> schedule == ll.StepLR(30, 0.5)
        True
    """

    __kind__ = "schedule"

    unit: Unit = field(default="step", kw_only=True)
    every_step: Flag = field(default=False, kw_only=True)

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:  # otherwise each dataclass gets a __repr__ that shows every default
            cls.__repr__ = Schedule.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in default_values(type(self))}
        shown = (
            f"{name}={values[name]!r}" for name, usual in default_values(type(self)).items() if values[name] != usual
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self) -> None:
        if self.every_step and self.unit != "epoch":
            raise SpecError(f"{type(self).__name__}(every_step=True): every_step needs unit='epoch'.")

    @overload
    def __call__(self, step: float, lr: float) -> float: ...
    @overload
    def __call__(self, step: Array | Sequence[float], lr: float) -> Float64: ...
    def __call__(self, step: ArrayLike, lr: float) -> float | Float64:
        """Return the rate at ``step`` for a group whose own rate is ``lr``.

        Args:
            step: Steps or epochs since the start (0-based), as ``unit`` says: one number, or an array of any shape.
                It need not be whole.
            lr: The group's own rate, before the schedule.

        Returns:
            A float for one step; for an array, a float64 array of the shape of ``step``.

        Raises:
            SpecError: The rate would be negative or not finite, or the schedule needs the length of the run.
        """
        # The fast path of a training loop, which asks for one step: only the formula and its check.
        if (type(step) is int or type(step) is float) and type(lr) is float and 0 <= step <= _LARGEST:
            try:
                rate: float = self._rate(float(step), lr)
            except OverflowError:
                rate = _INFINITY
            if 0.0 <= rate < _INFINITY and 0.0 <= lr < _INFINITY:
                return rate
            if lr == 0.0 and self._multiplies:
                return 0.0
            raise self._rate_error(rate, float(step), check_lr(lr))
        steps = check_steps(step)
        if not steps.ndim:
            return self(float(steps), check_lr(lr))
        return self.rates(steps.ravel(), (lr,))[:, 0].reshape(steps.shape)

    def rates(self, step: ArrayLike, lrs: Sequence[float] | Float64) -> Float64:
        """Return the rates of several groups that share this schedule; the common part is computed once.

        Args:
            step: One step, or an array (n,) of steps.
            lrs: The groups' own rates.

        Returns:
            float64, (groups,) for one step, (n, groups) for an array; each group's column is contiguous.

        Raises:
            SpecError: A rate would be negative or not finite, or the schedule needs the length of the run.

        Example:
            >>> import layered_lr as ll
            >>> ll.StepLR(2, gamma=0.5).rates([0, 2], lrs=[0.1, 0.4])
            array([[0.1 , 0.4 ],
                   [0.05, 0.2 ]])
        """
        own = lrs if isinstance(lrs, np.ndarray) and lrs.dtype == np.float64 else np.array([check_lr(lr) for lr in lrs])
        if not (own.min(initial=0.0) >= 0 and own.max(initial=0.0) < _INFINITY):
            raise SpecError(f"lr={own}: a group's lr must be a finite number >= 0.")
        if type(step) is float or type(step) is int:
            return self._rates_at(step, own)
        steps, column = check_steps(step), own[:, None]
        table = np.empty((len(lrs), len(steps)))
        width = max(256, _BLOCK // max(1, len(lrs)) * 4)
        with np.errstate(all="ignore"):
            for start in range(0, len(steps), width):
                block = table[:, start : start + width]
                block[...] = self._rate(steps[start : start + width], column)
                if self._multiplies:
                    block[own == 0.0] = 0.0  # without this, 0 times an infinite factor would be NaN
                if block.size and not (block.min() >= 0 and block.max() < _INFINITY):
                    row, place = np.argwhere(~((block >= 0) & (block < _INFINITY)))[0]
                    raise self._rate_error(block[row, place], steps[start + place], column[row, 0])
        return table.T

    def momentum(self, step: ArrayLike) -> float | Float64 | None:
        """Return the momentum (or first beta) at ``step``; None if the schedule leaves it to the optimizer.

        Args:
            step: One step, or an array of steps.

        Returns:
            A float for one step; for an array, a float64 array of the shape of ``step``.

        Raises:
            SpecError: The momentum would be negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> ll.StepLR(2).momentum(0) is None
            True
            >>> ll.CyclicLR(0.01, 0.1, step_size_up=2, base_momentum=0.5, max_momentum=0.9).momentum(2)
            0.5
        """
        if not self.drives_momentum:
            return None
        steps = check_steps(step)
        with np.errstate(all="ignore"):
            result = self._momentum(float(steps) if not steps.ndim else steps.ravel())
        if not np.all((np.asarray(result) >= 0) & np.isfinite(result)):
            raise SpecError(f"{self!r} gives a momentum that is negative or not finite: it must be >= 0.")
        return float(result) if not steps.ndim else np.broadcast_to(result, (steps.size,)).reshape(steps.shape)

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule changes the momentum too."""
        return False

    @property
    def is_bound(self) -> bool:
        """Whether the schedule knows every length that it needs. If not, ``bind`` gives it the length of the run."""
        return True

    def bind(self: S, total: float) -> S:
        """Return this schedule with every missing length taken from the length of the run.

        Args:
            total: Length of the run, in steps or epochs as ``unit`` says.

        Example:
            >>> import layered_lr as ll
            >>> ll.CosineDecay(warmup_steps=2).bind(10)
            CosineDecay(total_steps=10, warmup_steps=2)
        """
        return self

    def start_reaction(self, lr: float) -> Reaction | None:
        """Return a new ``Reaction``, which decides the rate during training; None if all rates are known beforehand.

        The rate of a step is then ``schedule(step, reaction.rate)``.

        Args:
            lr: The group's own rate, before ``lr_scale``.

        Example:
            >>> import layered_lr as ll
            >>> ll.StepLR(2).start_reaction(0.1) is None
            True
            >>> ll.ReduceLROnPlateau().start_reaction(0.1).rate
            0.1
        """
        return None

    def position(self, step: Value, steps_per_epoch: int) -> Value:
        """Convert an optimizer update into the unit that this schedule counts.

        Args:
            step: 0-based optimizer update: an int, or an array of ints.
            steps_per_epoch: Updates in one epoch, >= 1.

        Returns:
            The update itself, its whole epoch, or with ``every_step`` the number ``epoch + i / steps_per_epoch``.

        Example:
            >>> import layered_lr as ll
            >>> ll.StepLR(2, unit="epoch").position(25, steps_per_epoch=10)
            2
        """
        if self.unit == "step":
            return step
        epoch = step // steps_per_epoch
        return epoch + (step - epoch * steps_per_epoch) / steps_per_epoch if self.every_step else epoch

    def _rates_at(self, step: float, lrs: Float64) -> Float64:
        if not 0 <= step <= _LARGEST:
            check_steps(step)
        with np.errstate(all="ignore"):
            try:
                rates = np.empty(lrs.shape)
                rates[...] = self._rate(float(step), lrs)
            except OverflowError:
                rates = np.full(lrs.shape, _INFINITY)
            if self._multiplies:
                rates[lrs == 0.0] = 0.0
        if rates.size and not (rates.min() >= 0 and rates.max() < _INFINITY):
            place = np.flatnonzero(~((rates >= 0) & (rates < _INFINITY)))[0]
            raise self._rate_error(rates[place], step, lrs[place])
        return rates

    def _rate_error(self, rate: float, step: float, lr: float) -> SpecError:
        return SpecError(
            f"{self!r} gives the rate {rate:g} at {self.unit} {step:.17g} for lr {lr:g}: "
            "a rate must be a finite number >= 0."
        )

    def _last_step(self, step: Value) -> int:
        """Return the last of the steps, for schedules that compute each rate from the one before."""
        last = int(largest(step)) if np.size(step) else 0
        if last >= LONGEST:
            raise SpecError(
                f"{type(self).__name__} was asked for {self.unit} {last:g}: it computes each rate from the one before "
                f"and keeps at most {LONGEST:,}. Ask for an earlier {self.unit}."
            )
        return last

    def _length_error(self, name: str) -> SpecError:
        kind = type(self).__name__
        return SpecError(
            f"{kind} does not know how long the run is: give {kind}({name}=...), or call .bind(total) with the length "
            f"of the run in {self.unit}s."
        )

    def _too_short_error(self, total: float, **parts: float) -> SpecError:
        """The error of a run that is too short for a schedule which takes its length from the run.

        Args:
            total: The length that the run has for it.
            parts: The arguments that together need more.
        """
        given = ", ".join(f"{name}={value:g}" for name, value in parts.items())
        return SpecError(
            f"{type(self).__name__}({given}) needs {sum(parts.values()):g} {self.unit}s, and the run has {total:g} for "
            f"it. Make the run longer (max_steps or epochs, or total_steps where you give that), or make "
            f"{' or '.join(parts)} smaller."
        )

    @abstractmethod
    def _rate(self, step: Value, lr: Value) -> Value:
        """Return the rate: a float for two floats; for steps (n,) and rates (groups, 1), broadcast to (groups, n)."""

    def _momentum(self, step: Value) -> Value:
        """Return the momentum at a step or at each of (n,) steps; only called if ``drives_momentum``."""
        raise SpecError(f"{type(self).__name__} does not change the momentum.")

    @property
    def _multiplies(self) -> bool:
        """Whether, in a chain, the schedule multiplies the previous rate. Otherwise it sets the rate itself."""
        return False

    def _updates(self, step: Float64) -> Updates:
        """Return what the schedule does to the rate in a ``ChainedScheduler``, at whole, consecutive steps."""
        rates = np.broadcast_to(self._rate(step, np.array([[0.0], [1.0]])), (2, len(step)))
        if not self._multiplies:
            return Updates(np.zeros(len(step)), rates[1] - rates[0], rates[0].copy())
        now = rates[1]
        before = np.broadcast_to(self._rate(np.maximum(step - 1, 0), np.array([[1.0]])), (1, len(step)))[0]
        before = np.where(step == 0, 1.0, before)
        rising = np.flatnonzero((before == 0) & (now > 0))
        if rising.size:
            raise SpecError(
                f"{type(self).__name__} rises from 0 at step {step[rising[0]]:g}: a chain multiplies the previous "
                "step's rate, and 0 stays 0. Start above 0, or use Warmup or SequentialLR."
            )
        keep = now / np.where(before == 0, 1.0, before)
        past = np.flatnonzero(before == 0)
        if past.size:
            keep[past] = self._ratio_past_zero(step[past])
        return Updates(keep, np.zeros(len(step)), np.zeros(len(step)))

    def _ratio_past_zero(self, step: Float64) -> Float64:
        """Return what a chain multiplies the previous rate with at steps whose factor, and the one before, are 0.

        torch's schedules never look at their own factor: most leave the rate as they find it, whatever set it there.
        """
        return np.zeros(len(step))


@functools.cache
def default_values(kind: type[Schedule]) -> dict[str, Any]:
    """Return each field's name and default; ``MISSING`` if it has none."""
    return {
        entry.name: entry.default if entry.default_factory is MISSING else entry.default_factory()
        for entry in fields(kind)
    }


def _check_child(value: object) -> Schedule:
    if not isinstance(value, Schedule):
        raise PydanticCustomError("schedule", "Input should be a schedule of layered_lr")
    return value


# A schedule inside a schedule. Without the validator, pydantic would accept a dict.
Child = Annotated[Schedule, PlainValidator(_check_child)]
Children = Annotated[Sequence[Child], AfterValidator(tuple)]


class FactorSchedule(Schedule):
    """A schedule whose rate is ``lr`` times a factor that depends on the step alone."""

    @abstractmethod
    def _factor(self, step: Value) -> Value:
        """Return the factor at a step, or at each of (n,) steps."""

    def _rate(self, step: Value, lr: Value) -> Value:
        return lr * self._factor(step)

    @property
    def _multiplies(self) -> bool:
        return True
