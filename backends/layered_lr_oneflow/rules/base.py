"""What an update rule is, and the few operations that rules share, in eager mode and in a traced graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from layered_lr.optimizers import Optimizer
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow

O = TypeVar("O", bound=Optimizer)  # noqa: E741 # an optimizer

Number: TypeAlias = Any
"""A Python float in eager mode. In a graph, a number that may change between calls is a float64 tensor: of shape (1,)
if it belongs to a group, of shape (parameters,) if each parameter has its own."""

SlotTensors: TypeAlias = Mapping[str, Tensor]
"""The slots of one parameter, by torch's names."""

Scalars: TypeAlias = Mapping[str, Number]
"""Numbers by name."""

ScalarsAndCounters: TypeAlias = tuple[dict[str, Number], dict[str, Number]]
"""The numbers that an update needs, and the counters that the next update starts from."""


class RateAndMomentum(NamedTuple):
    """What may change from one update of a group to the next.

    Args:
        rate: The learning rate, already multiplied by ``lr_scale``.
        momentum: SGD's momentum, or the first of an optimizer's betas; None for an optimizer without one.
    """

    rate: Number
    momentum: Number


class SlotStart(NamedTuple):
    """A slot before the first update.

    Args:
        shape: The slot's, which need not be the parameter's.
        value: What fills it.
    """

    shape: tuple[int, ...]
    value: float


class UpdateRule(ABC, Generic[O]):
    """How an optimizer updates one parameter, as torch does it. Subclasses are final.

    The same code serves eager mode and a graph. ``compute_scalars`` computes in float64, as torch computes in Python's
    floats; each result is rounded to the parameter's dtype once, where an op uses it. ``update`` dispatches the ops.

    Args:
        optimizer: Every hyperparameter, except the rate and the momentum: these come with each update.
    """

    def __init__(self, optimizer: O) -> None:
        self.optimizer = optimizer

    @property
    @abstractmethod
    def slots(self) -> Mapping[str, float]:
        """The slots of each parameter, by torch's names, each with the number that fills it at first."""

    def list_slots(self, shape: tuple[int, ...]) -> Mapping[str, SlotStart]:
        """The slots of a parameter of this shape, by torch's names, each with its shape and first number."""
        return {name: SlotStart(shape, value) for name, value in self.slots.items()}

    @property
    def counters(self) -> Mapping[str, float]:
        """Numbers that each parameter's update hands to the next, by torch's names, each with its first value."""
        return {}

    @abstractmethod
    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute what ``update`` needs, and the counters after the update.

        Args:
            numbers: Of the group at this update.
            counters: The parameter's, as the update before left them.
        """

    @abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update.

        In a graph only one op may write to a parameter or slot: it runs after all ops that read the old value.

        Args:
            parameter: Not empty.
            gradient: Its gradient.
            slots: Its slots.
            scalars: From ``compute_scalars``: Python floats, or tensors of the parameter's dtype.
        """

    def orient_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient, negated if the optimizer maximizes."""
        return -gradient if self.optimizer.maximize else gradient

    def add_decay(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient with ``maximize`` and the coupled weight decay applied."""
        gradient = self.orient_gradient(gradient)
        decay = self.optimizer.weight_decay
        return gradient + parameter * decay if decay else gradient


AnyRule: TypeAlias = UpdateRule[Any]
"""The rule of some optimizer."""


def make_slots(rule: AnyRule, parameter: Tensor) -> dict[str, Tensor]:
    """Make a rule's slots for a parameter, filled as before its first update."""
    return {
        name: flow.zeros_like(parameter).detach().fill_(start.value)
        if start.shape == tuple(parameter.shape)
        else flow.tensor(np.full(start.shape, start.value), dtype=parameter.dtype, device=parameter.device)
        for name, start in rule.list_slots(tuple(parameter.shape)).items()
    }


def assign(target: Tensor, value: Tensor) -> None:
    """Write ``value`` into a parameter or slot, exactly. Python reaches OneFlow's ``assign`` op by this name only."""
    flow._C.assign_local_tensor(target, value)


def apply_step(parameter: Tensor, direction: Tensor, rate: Number) -> None:
    """Compute ``parameter -= rate * direction``, rounded as OneFlow's optimizers do it."""
    if parameter.dtype != flow.float32:  # the op's rate is float32, whatever the dtype is
        assign(parameter, parameter - direction * rate)
        return
    op = flow.stateful_op("sgd_update").Input("model").Input("model_diff")
    if isinstance(rate, float):
        flow._C.dispatch_sgd_update(op.Build(), (parameter, direction), learning_rate=rate, l2=0.0)
    else:
        op = op.Input("learning_rate").Build()
        flow._C.dispatch_sgd_update(op, (parameter, direction, as_vector(rate)), learning_rate=0.0, l2=0.0)


def as_vector(number: Any) -> Tensor:
    """Bring a tensor of one number to shape (1,), which OneFlow's update ops require."""
    return number if number.ndim else flow.reshape(number, (1,))


def lerp(start: Tensor, end: Tensor, weight: Number) -> Tensor:
    """Interpolate from ``start`` (weight 0) to ``end`` (weight 1), rounded as torch's ``lerp`` rounds."""
    if isinstance(weight, float) and weight >= 0.5:
        return end - (end - start) * (1 - weight)
    return start + (end - start) * weight


def update_mean_square(old: Tensor, gradient: Tensor, beta: float) -> Tensor:
    """Return the running mean of the gradient's square, with this gradient in it, multiplied in torch's order."""
    return old * beta + gradient * (1 - beta) * gradient


def norm(tensor: Tensor) -> Tensor:
    """Compute the L2 norm, shape (), in the tensor's dtype; summed in float64, as float32 loses digits in long sums."""
    wide = tensor.to(flow.float64)
    return flow.sqrt((wide * wide).sum()).to(tensor.dtype)


def choose(condition: Number, true: Number, false: Number) -> Number:
    """Return ``true`` where the condition holds, else ``false``; for Python's numbers and for a graph's."""
    if isinstance(condition, bool):
        return true if condition else false
    zeros = condition.to(flow.float64) * 0.0
    return flow.where(condition, zeros + true, zeros + false)


def as_float32(number: Number) -> Number:
    """Round a number to float32; it stays a Python float, or a float64 tensor."""
    if isinstance(number, float):
        return float(np.float32(number))
    return number.to(flow.float32).to(flow.float64)
