"""What every schedule is: a frozen dataclass that is data, and a vectorised function of the step in float64.

Names, arguments and meaning are torch's. A schedule knows nothing of groups or frameworks: a plan asks it
for rates, and ``lr_scale`` multiplies what it answers.
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
from numpy.typing import NDArray
from pydantic import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import lr_of, steps_of
from layered_lr.schedules.arithmetic import Value, largest
from layered_lr.validation import Flag, value_class

if TYPE_CHECKING:
    from layered_lr.schedules.reaction import Reaction

Unit: TypeAlias = Literal["step", "epoch"]
S = TypeVar("S", bound="Schedule")

_INFINITY = math.inf
_LARGEST = sys.float_info.max
# What a schedule that cumulates step by step keeps at most.
LONGEST = 10**7
# Steps evaluated at once: temporaries of this length stay in the processor's cache.
_BLOCK = 8192


class Updates(NamedTuple):
    """One schedule's part in a chain: at each step, the rate x becomes ``keep * x + slope * lr + offset``."""

    keep: Float64
    slope: Float64
    offset: Float64


@value_class
class Schedule(ABC):
    """A learning rate as a function of the step, in closed form.

    A schedule inside another one counts what the outer one counts: ``unit`` and ``every_step`` are given to
    the outermost.

    Args:
        unit: What the schedule counts: optimizer updates (``"step"``, the default) or ``"epoch"`` s.
        every_step: With ``unit="epoch"``: the rate follows the fraction of the epoch at every update, as
            torch's ``CosineAnnealingWarmRestarts.step(epoch + i / iters)`` does, instead of changing only
            where an epoch begins. What changes in jumps (``StepLR``, ``Table``, ...) still jumps.
    """

    unit: Unit = field(default="step", kw_only=True)
    every_step: Flag = field(default=False, kw_only=True)

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:  # else each dataclass gets one that shows every default
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
    def __call__(self, step: NDArray[Any] | Sequence[float], lr: float) -> Float64: ...
    def __call__(self, step: Any, lr: float) -> Any:
        """The rate at ``step`` for a group whose own rate is ``lr``.

        Args:
            step: 0-based count in ``unit`` s: one number, or an array of them of any shape. It need not be whole.
            lr: The group's rate, dimensionless, per update.

        Returns:
            A float for one step, a float64 array of the shape of ``step`` for an array.

        Raises:
            SpecError: the rate would be negative or not finite, or the schedule lacks the run's length.
        """
        # One step in a training loop: nothing but the formula and its check.
        if (type(step) is int or type(step) is float) and type(lr) is float and 0 <= step <= _LARGEST:
            try:
                rate: float = self._rate(float(step), lr)
            except OverflowError:
                rate = _INFINITY
            if 0.0 <= rate < _INFINITY and 0.0 <= lr < _INFINITY:
                return rate
            if lr == 0.0 and self._multiplies:
                return 0.0
            raise self._impossible(rate, float(step), lr_of(lr))
        steps = steps_of(step)
        if not steps.ndim:
            return self(float(steps), lr_of(lr))
        return self.rates(steps.ravel(), (lr,))[:, 0].reshape(steps.shape)

    def rates(self, step: Any, lrs: Sequence[float] | Float64) -> Float64:
        """The rates of several groups that share this schedule; what they have in common is computed once.

        Args:
            step: One step, or (n,) of them, as in a call.
            lrs: The groups' own rates.

        Returns:
            float64: (groups,) for one step, (n, groups) for an array, each group's column contiguous.

        Raises:
            SpecError: as in a call.
        """
        own = lrs if isinstance(lrs, np.ndarray) and lrs.dtype == np.float64 else np.array([lr_of(lr) for lr in lrs])
        if not (own.min(initial=0.0) >= 0 and own.max(initial=0.0) < _INFINITY):
            raise SpecError(f"lr={own}: a group's lr must be a finite number >= 0.")
        if type(step) is float or type(step) is int:
            return self._rates_at(step, own)
        steps, column = steps_of(step), own[:, None]
        table = np.empty((len(lrs), len(steps)))
        width = max(256, _BLOCK // max(1, len(lrs)) * 4)
        with np.errstate(all="ignore"):
            for start in range(0, len(steps), width):
                block = table[:, start : start + width]
                block[...] = self._rate(steps[start : start + width], column)
                if self._multiplies:
                    block[own == 0.0] = 0.0  # not the NaN of a factor that is no float any more
                if block.size and not (block.min() >= 0 and block.max() < _INFINITY):
                    row, place = np.argwhere(~((block >= 0) & (block < _INFINITY)))[0]
                    raise self._impossible(block[row, place], steps[start + place], column[row, 0])
        return table.T

    def momentum(self, step: Any) -> Any:
        """The momentum (or first beta) at ``step``, or ``None`` where the schedule leaves it to the optimizer.

        Args:
            step: One step, or an array of them, as in a call.

        Returns:
            A float for one step, a float64 array of the shape of ``step`` for an array.
        """
        if not self.drives_momentum:
            return None
        steps = steps_of(step)
        with np.errstate(all="ignore"):
            result = self._momentum(float(steps) if not steps.ndim else steps.ravel())
        if not np.all((np.asarray(result) >= 0) & np.isfinite(result)):
            raise SpecError(f"{self!r} gives a momentum that is negative or not finite.")
        return result if not steps.ndim else np.broadcast_to(result, (steps.size,)).reshape(steps.shape)

    @property
    def drives_momentum(self) -> bool:
        """Whether the schedule moves the momentum too."""
        return False

    @property
    def is_bound(self) -> bool:
        """Whether the schedule knows every length it needs; if not, ``bound`` gives it the run's."""
        return True

    def bound(self: S, total: float) -> S:
        """This schedule with every length that was left out taken from the run's.

        Args:
            total: Length of the run, in the schedule's own ``unit`` s.
        """
        return self

    def reaction(self, lr: float) -> Reaction | None:
        """What decides the rate while training, or ``None`` where everything is known beforehand.

        The rate that acts at a step is ``schedule(step, reaction.rate)``.
        """
        return None

    def position(self, step: Any, steps_per_epoch: int) -> Any:
        """The optimizer update ``step`` counted in this schedule's unit.

        Args:
            step: 0-based optimizer update: an int, or an array of ints.
            steps_per_epoch: Updates in one epoch, >= 1.

        Returns:
            Updates, whole epochs, or with ``every_step`` ``epoch + i / steps_per_epoch``: what a call takes.
        """
        if self.unit == "step":
            return step
        epoch = step // steps_per_epoch
        return epoch + (step - epoch * steps_per_epoch) / steps_per_epoch if self.every_step else epoch

    def _rates_at(self, step: float, lrs: Float64) -> Float64:
        if not 0 <= step <= _LARGEST:
            steps_of(step)
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
            raise self._impossible(rates[place], step, lrs[place])
        return rates

    def _impossible(self, rate: float, step: float, lr: float) -> SpecError:
        return SpecError(
            f"{self!r} gives the rate {rate:g} at {self.unit} {step:.17g} for lr {lr:g}: "
            "a rate must be a finite number >= 0."
        )

    def _last_cumulated(self, step: Value) -> int:
        """The last of the steps, for schedules that have to go through all steps before it."""
        last = int(largest(step)) if np.size(step) else 0
        if last >= LONGEST:
            raise SpecError(
                f"{type(self).__name__} was asked for {self.unit} {last:g}: it goes through all before it, "
                f"and keeps {LONGEST:,} at most."
            )
        return last

    def _needs(self, name: str) -> SpecError:
        kind = type(self).__name__
        return SpecError(
            f"{kind} does not know how long the run is: give {kind}({name}=...), or bind it with .bound({self.unit}s)."
        )

    @abstractmethod
    def _rate(self, step: Value, lr: Value) -> Value:
        """The rate: a float for two floats; for (n,) steps and (groups, 1) rates, what broadcasts to (groups, n)."""

    def _momentum(self, step: Value) -> Value:
        """The momentum at a step or at each of (n,) steps; only asked where ``drives_momentum``."""
        raise SpecError(f"{type(self).__name__} does not drive the momentum.")

    @property
    def _multiplies(self) -> bool:
        """Whether, in a chain, it multiplies the rate that it finds; otherwise it sets the rate outright."""
        return False

    def _updates(self, step: Float64) -> Updates:
        """Its part in a chain at whole, consecutive steps; see ``ChainedScheduler``."""
        rates = np.broadcast_to(self._rate(step, np.array([[0.0], [1.0]])), (2, len(step)))
        if not self._multiplies:
            return Updates(np.zeros(len(step)), rates[1] - rates[0], rates[0].copy())
        now = rates[1]
        before = np.broadcast_to(self._rate(np.maximum(step - 1, 0), np.array([[1.0]])), (1, len(step)))[0]
        before = np.where(step == 0, 1.0, before)
        rising = np.flatnonzero((before == 0) & (now > 0))
        if rising.size:
            raise SpecError(
                f"{type(self).__name__} rises from 0 at step {step[rising[0]]:g}: a chain multiplies the last "
                "step's rate, and from 0 nothing can rise. Begin above 0, or use Warmup or SequentialLR."
            )
        return Updates(now / np.where(before == 0, 1.0, before), np.zeros(len(step)), np.zeros(len(step)))


@functools.cache
def default_values(kind: type[Schedule]) -> dict[str, Any]:
    """Each field's name and default, ``MISSING`` where it has none."""
    return {
        entry.name: entry.default if entry.default_factory is MISSING else entry.default_factory()
        for entry in fields(kind)
    }


def _child(value: Any) -> Any:
    if not isinstance(value, Schedule):
        raise PydanticCustomError("schedule", "Input should be a schedule of layered_lr")
    return value


# A schedule inside a schedule; without the validator pydantic would take a dict for one.
Child = Annotated[Schedule, PlainValidator(_child)]
Children = Annotated[Sequence[Child], AfterValidator(tuple)]


class FactorSchedule(Schedule):
    """A schedule whose rate is ``lr`` times a factor that depends on the step alone."""

    @abstractmethod
    def _factor(self, step: Value) -> Value:
        """The factor at a step, or at each of (n,) steps."""

    def _rate(self, step: Value, lr: Value) -> Value:
        return lr * self._factor(step)

    @property
    def _multiplies(self) -> bool:
        return True
