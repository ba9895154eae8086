"""What an update rule is, and the few operations that rules are made of, in eager mode and in a traced graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from layered_lr.optimizers import Optimizer
from layered_lr_oneflow.runtime import flow

O = TypeVar("O", bound=Optimizer)  # noqa: E741 # an optimizer

# A Python float in eager mode; in a graph a float64 tensor where it may change between calls, shape (1,) for a group's
# and (parameters,) for what each parameter has of its own.
Number: TypeAlias = Any
Slots: TypeAlias = Mapping[str, Any]
Scalars: TypeAlias = Mapping[str, Number]


class Numbers(NamedTuple):
    """What may change from one update of a group to the next.

    Args:
        rate: The learning rate, ``lr_scale`` in it.
        momentum: SGD's momentum, or the first of an optimizer's betas; None for an optimizer without one.
    """

    rate: Number
    momentum: Number


class UpdateRule(ABC, Generic[O]):
    """How an optimizer updates one parameter, as torch does it. Subclasses are final.

    The same code serves eager mode and a graph. ``scalars`` computes in float64, as torch computes in Python's floats;
    each of its results is rounded to the parameter's dtype once, where an op uses it. ``update`` dispatches the ops.

    Args:
        optimizer: With every hyperparameter but the rate and the momentum, which ``Numbers`` brings.
    """

    def __init__(self, optimizer: O) -> None:
        self.optimizer = optimizer

    @property
    @abstractmethod
    def slots(self) -> Mapping[str, float]:
        """The tensors that each parameter has beside it, by torch's names, with the number they begin filled with."""

    @property
    def carried(self) -> Mapping[str, float]:
        """What an update of a parameter takes over from the one before: numbers by torch's names, with their start."""
        return {}

    @abstractmethod
    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """The numbers that ``update`` needs, by name, and what the next update takes over; may divide by nothing."""

    @abstractmethod
    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """Dispatch one update of a parameter that is not empty.

        In a graph one op may write to each parameter or slot: it runs after all ops that read the old value. Scalars
        are Python floats or tensors of the parameter's dtype.
        """

    def uphill(self, gradient: Any) -> Any:
        """The gradient, or what makes of a way down a way up."""
        return -gradient if self.optimizer.maximize else gradient

    def decayed(self, parameter: Any, gradient: Any) -> Any:
        """The gradient with ``maximize`` and the coupled weight decay in it."""
        gradient = self.uphill(gradient)
        decay = self.optimizer.weight_decay
        return gradient + parameter * decay if decay else gradient


def assign(target: Any, value: Any) -> None:
    """Write ``value`` into a parameter or slot, exactly: OneFlow's ``assign`` op, which Python reaches by this name."""
    flow._C.assign_local_tensor(target, value)


def descend(parameter: Any, direction: Any, rate: Number) -> None:
    """``parameter -= rate * direction``, rounded as OneFlow's optimizers do it."""
    if parameter.dtype != flow.float32:  # the op's rate is float32 in any dtype
        assign(parameter, parameter - direction * rate)
        return
    op = flow.stateful_op("sgd_update").Input("model").Input("model_diff")
    if isinstance(rate, float):
        flow._C.dispatch_sgd_update(op.Build(), (parameter, direction), learning_rate=rate, l2=0.0)
    else:
        op = op.Input("learning_rate").Build()
        flow._C.dispatch_sgd_update(op, (parameter, direction, as_vector(rate)), learning_rate=0.0, l2=0.0)


def as_vector(number: Any) -> Any:
    """A tensor of one number in the shape (1,), which OneFlow's update ops ask for."""
    return number if number.ndim else flow.reshape(number, (1,))


def lerp(start: Any, end: Any, weight: Number) -> Any:
    """The point ``weight`` of the way from ``start`` to ``end``; torch's rounding at ``weight >= 0.5`` too."""
    if isinstance(weight, float) and weight >= 0.5:
        return end - (end - start) * (1 - weight)
    return start + (end - start) * weight


def mean_square(old: Any, gradient: Any, beta: float) -> Any:
    """The running mean of a gradient's square."""
    return old * beta + gradient * gradient * (1 - beta)


def norm(tensor: Any) -> Any:
    """The L2 norm, shape (), in the tensor's dtype; summed in float64: float32 loses digits over a million terms."""
    wide = tensor.to(flow.float64)
    return flow.sqrt((wide * wide).sum()).to(tensor.dtype)


def choose(condition: Any, true: Number, false: Number) -> Number:
    """``true`` where the condition holds, else ``false``; of Python's numbers, or a graph's in float64."""
    if isinstance(condition, bool):
        return true if condition else false
    zeros = condition.to(flow.float64) * 0.0
    return flow.where(condition, zeros + true, zeros + false)


def as_float32(number: Number) -> Number:
    """The number rounded to float32, still held as it was."""
    if isinstance(number, float):
        return float(np.float32(number))
    return number.to(flow.float32).to(flow.float64)
