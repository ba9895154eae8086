"""SGD and LARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from layered_lr.optimizers import LARS, SGD
from layered_lr_oneflow.rules.base import (
    Number,
    Numbers,
    Scalars,
    Slots,
    UpdateRule,
    as_vector,
    assign,
    choose,
    descend,
    norm,
)
from layered_lr_oneflow.runtime import flow


def momentum_carried(optimizer: SGD | LARS) -> Mapping[str, float]:
    """How often the momentum moved, where its first time differs from the others."""
    return {"step": 0} if optimizer.momentum and optimizer.dampening else {}


def momentum_scalars(
    optimizer: SGD | LARS, numbers: Numbers, carried: Scalars
) -> tuple[dict[str, Number], dict[str, Number]]:
    """What SGD's momentum needs: it takes the whole of its first gradient, of the others what ``dampening`` leaves."""
    scalars = {"rate": numbers.rate, "momentum": numbers.momentum}
    if isinstance(numbers.momentum, float) and numbers.momentum == 0:
        return scalars, {}
    if not optimizer.dampening:
        return scalars, {}
    scalars["gain"] = choose(carried["step"] == 0, 1.0, 1 - optimizer.dampening)
    return scalars, {"step": carried["step"] + 1}


def with_momentum(optimizer: SGD | LARS, gradient: Any, slots: Slots, scalars: Scalars) -> Any:
    """The direction that SGD's momentum makes of a gradient; its buffer is written."""
    momentum = scalars["momentum"]
    if isinstance(momentum, float) and momentum == 0:
        return gradient
    gained = gradient * scalars["gain"] if "gain" in scalars else gradient
    total = slots["momentum_buffer"] * momentum + gained
    assign(slots["momentum_buffer"], total)
    return gradient + total * momentum if optimizer.nesterov else total


@final
class SGDRule(UpdateRule[SGD]):
    """``torch.optim.SGD``; see ``layered_lr.SGD`` for the formula."""

    @property
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return momentum_carried(self.optimizer)

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"momentum_buffer": 0.0} if self.optimizer.momentum else {}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        return momentum_scalars(self.optimizer, numbers, carried)

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        o, momentum = self.optimizer, scalars["momentum"]
        plain = parameter.dtype == flow.float32 and not o.dampening and not o.maximize
        if plain and isinstance(momentum, float) and momentum:
            self._native(parameter, gradient, slots["momentum_buffer"], scalars)
            return
        direction = with_momentum(o, self.decayed(parameter, gradient), slots, scalars)
        descend(parameter, direction, scalars["rate"])

    def _native(self, parameter: Any, gradient: Any, buffer: Any, scalars: Scalars) -> None:
        """OneFlow's own op: one instead of six, and bitwise what they give."""
        rate = scalars["rate"]
        op = flow.stateful_op("momentum_update").Input("model").Input("model_diff").Input("momentum")
        fixed = isinstance(rate, float)
        inputs = (parameter, gradient, buffer) if fixed else (parameter, gradient, buffer, as_vector(rate))
        flow._C.dispatch_momentum_update(
            op.Build() if fixed else op.Input("learning_rate").Build(),
            inputs,
            learning_rate=rate if fixed else 0.0,
            l2=self.optimizer.weight_decay,
            beta=scalars["momentum"],
            dampening=0.0,
            nesterov=self.optimizer.nesterov,
            maximize=False,
        )


@final
class LARSRule(UpdateRule[LARS]):
    """See ``layered_lr.LARS`` for the formula and the paper."""

    @property
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return momentum_carried(self.optimizer)

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"momentum_buffer": 0.0} if self.optimizer.momentum else {}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        return momentum_scalars(self.optimizer, numbers, carried)

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        o = self.optimizer
        size, slope = norm(parameter), norm(gradient)
        trust = size * o.trust_coefficient / (slope + size * o.weight_decay + o.eps)
        trust = flow.where((size > 0).logical_and(slope > 0), trust, flow.ones_like(trust))
        scaled = self.decayed(parameter, gradient) * trust
        descend(parameter, with_momentum(o, scaled, slots, scalars), scalars["rate"])
