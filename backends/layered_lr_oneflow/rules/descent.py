"""SGD and LARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from layered_lr.optimizers import LARS, SGD
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.broadcasting import is_greater
from layered_lr_oneflow.rules.base import (
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotTensors,
    UpdateRule,
    apply_step,
    as_vector,
    assign,
    choose,
    norm,
)
from layered_lr_oneflow.runtime import flow


def momentum_counters(optimizer: SGD | LARS) -> Mapping[str, float]:
    """The count of updates, if dampening makes the first one differ from the others."""
    return {"step": 0} if optimizer.momentum and optimizer.dampening else {}


def compute_momentum_scalars(optimizer: SGD | LARS, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
    """Compute the scalars of SGD's momentum: dampening applies to all gradients except the first."""
    scalars = {"rate": numbers.rate, "momentum": numbers.momentum}
    if isinstance(numbers.momentum, float) and numbers.momentum == 0:
        return scalars, {}
    if not optimizer.dampening:
        return scalars, {}
    scalars["gain"] = choose(counters["step"] == 0, 1.0, 1 - optimizer.dampening)
    return scalars, {"step": counters["step"] + 1}


def apply_momentum(optimizer: SGD | LARS, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> Tensor:
    """Update the momentum buffer with a gradient; returns the direction of the update."""
    momentum = scalars["momentum"]
    if isinstance(momentum, float) and momentum == 0:
        return gradient
    gained = gradient * scalars["gain"] if "gain" in scalars else gradient
    total = slots["momentum_buffer"] * momentum + gained
    assign(slots["momentum_buffer"], total)
    return gradient + total * momentum if optimizer.nesterov else total


@final
class SGDRule(UpdateRule[SGD]):
    """``torch.optim.SGD``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of updates, if the first one differs from the others."""
        return momentum_counters(self.optimizer)

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"momentum_buffer": 0.0} if self.optimizer.momentum else {}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        return compute_momentum_scalars(self.optimizer, numbers, counters)

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        o, momentum = self.optimizer, scalars["momentum"]
        plain = parameter.dtype == flow.float32 and not o.dampening and not o.maximize
        if plain and isinstance(momentum, float) and momentum:
            self._update_natively(parameter, gradient, slots["momentum_buffer"], scalars)
            return
        direction = apply_momentum(o, self.add_decay(parameter, gradient), slots, scalars)
        apply_step(parameter, direction, scalars["rate"])

    def _update_natively(self, parameter: Tensor, gradient: Tensor, buffer: Tensor, scalars: Scalars) -> None:
        """Update by OneFlow's own op: one op instead of six, with bitwise the same result."""
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
    """SGD whose gradients are scaled by a trust ratio; ``layered_lr.LARS`` has the formula and the paper."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of updates, if the first one differs from the others."""
        return momentum_counters(self.optimizer)

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"momentum_buffer": 0.0} if self.optimizer.momentum else {}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        return compute_momentum_scalars(self.optimizer, numbers, counters)

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        o = self.optimizer
        size, slope = norm(parameter), norm(gradient)
        trust = size * o.trust_coefficient / (slope + size * o.weight_decay + o.eps)
        trust = flow.where(is_greater(size, 0).logical_and(is_greater(slope, 0)), trust, flow.ones_like(trust))
        scaled = self.add_decay(parameter, gradient) * trust
        apply_step(parameter, apply_momentum(o, scaled, slots, scalars), scalars["rate"])
