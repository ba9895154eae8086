"""Update rules: each optimizer as ops of a graph, for one parameter at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar, final

from layered_lr.errors import Unsupported
from layered_lr.optimizers import SGD, Optimizer
from layered_lr_oneflow.runtime import flow

O = TypeVar("O", bound=Optimizer)  # noqa: E741 # an optimizer
Slots = Mapping[str, Any]


class Numbers(NamedTuple):
    """What may change between two calls of a graph, of one group: tensors of shape (1,) in the parameters' dtype.

    Args:
        rate: The learning rate, ``lr_scale`` in it.
        momentum: SGD's momentum, or beta1 of optimizers that have betas; only where the rule's ``varies`` is true.
    """

    rate: Any
    momentum: Any


class UpdateRule(ABC, Generic[O]):
    """How an optimizer updates one parameter, out of ops that a graph compiles. Subclasses are final.

    A rule reads the rate, and the momentum where it ``varies``, from tensors; every other hyperparameter is compiled
    in. In float32 and with a compiled momentum it may use OneFlow's own update op; it composes from ordinary ops
    what that op cannot do. The two agree bitwise on a CPU (the tests see to it).

    Args:
        optimizer: The group's, with every hyperparameter.
        varies: The momentum comes from ``Numbers``.
    """

    def __init__(self, optimizer: O, varies: bool) -> None:
        self.optimizer = optimizer
        self.varies = varies

    @property
    @abstractmethod
    def momentum(self) -> float | None:
        """The momentum (or beta1) of the spec; None for an optimizer without one."""

    @abstractmethod
    def slots(self, parameter: Any) -> dict[str, Any]:
        """New slots for a parameter: eager tensors by name, as they are before the first update."""

    @abstractmethod
    def update(self, parameter: Any, gradient: Any, slots: Slots, numbers: Numbers) -> None:
        """Dispatch one update; everything given is a tensor of the graph that is being traced.

        A graph takes one op that writes to each parameter or slot: it runs after all ops that read the old value.
        """


def assign(target: Any, value: Any) -> None:
    """Write ``value`` into a parameter or slot, exactly: OneFlow's ``assign`` op, which Python reaches by this name."""
    flow._C.assign_local_tensor(target, value)


def descend(parameter: Any, direction: Any, rate: Any) -> None:
    """``parameter -= rate * direction``, rounded as OneFlow's optimizers do it."""
    if parameter.dtype == flow.float32:
        op = flow.stateful_op("sgd_update").Input("model").Input("model_diff").Input("learning_rate").Build()
        flow._C.dispatch_sgd_update(op, (parameter, direction, rate), learning_rate=0.0)
    else:  # its rate is float32 in any dtype
        assign(parameter, parameter - rate * direction)


@final
class SGDRule(UpdateRule[SGD]):
    """``torch.optim.SGD``; see ``layered_lr.SGD`` for the formula."""

    @property
    def momentum(self) -> float:
        """The spec's; 0 has no slot."""
        return self.optimizer.momentum

    def slots(self, parameter: Any) -> dict[str, Any]:
        """See ``UpdateRule.slots``."""
        return {"momentum": flow.zeros_like(parameter)} if self.momentum or self.varies else {}

    def update(self, parameter: Any, gradient: Any, slots: Slots, numbers: Numbers) -> None:
        """See ``UpdateRule.update``."""
        if slots and not self.varies and parameter.dtype == flow.float32:
            self._native(parameter, gradient, slots["momentum"], numbers.rate)
            return
        decay = self.optimizer.weight_decay
        direction = gradient + parameter * decay if decay else gradient
        if slots:
            momentum = numbers.momentum if self.varies else self.momentum
            total = slots["momentum"] * momentum + direction
            assign(slots["momentum"], total)
            direction = direction + total * momentum if self.optimizer.nesterov else total
        descend(parameter, direction, numbers.rate)

    def _native(self, parameter: Any, gradient: Any, momentum: Any, rate: Any) -> None:
        op = flow.stateful_op("momentum_update").Input("model").Input("model_diff").Input("momentum")
        flow._C.dispatch_momentum_update(
            op.Input("learning_rate").Build(),
            (parameter, gradient, momentum, rate),
            learning_rate=0.0,
            l2=self.optimizer.weight_decay,
            beta=self.momentum,
            dampening=0.0,
            nesterov=self.optimizer.nesterov,
            maximize=False,
        )


_RULES: Mapping[type[Optimizer], type[UpdateRule[Any]]] = {SGD: SGDRule}


def rule_of(optimizer: Optimizer, varies: bool) -> UpdateRule[Any]:
    """The rule of an optimizer.

    Raises:
        Unsupported: There is none.
    """
    kind = _RULES.get(type(optimizer))
    if kind is None:
        raise Unsupported(
            f"a OneFlow Graph whose rates change while it runs has no rule for {type(optimizer).__name__}; "
            f"it has: {', '.join(known.__name__ for known in _RULES)}. Use 'oneflow-eager'."
        )
    return kind(optimizer, varies)
