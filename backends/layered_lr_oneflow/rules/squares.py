"""RMSprop, Adagrad and Adadelta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from layered_lr.optimizers import Adadelta, Adagrad, RMSprop
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.rules.base import (
    Number,
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotTensors,
    UpdateRule,
    apply_step,
    as_vector,
    assign,
    lerp,
    update_mean_square,
)
from layered_lr_oneflow.runtime import flow


@final
class RMSpropRule(UpdateRule[RMSprop]):
    """``torch.optim.RMSprop``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        o = self.optimizer
        return {
            "square_avg": 0.0,
            **({"grad_avg": 0.0} if o.centered else {}),
            **({"momentum_buffer": 0.0} if o.momentum else {}),
        }

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        return {"rate": numbers.rate, "momentum": numbers.momentum}, {}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        o, momentum = self.optimizer, scalars["momentum"]
        gradient = self.add_decay(parameter, gradient)
        spread = squares = update_mean_square(slots["square_avg"], gradient, o.alpha)
        assign(slots["square_avg"], squares)
        if o.centered:
            mean = lerp(slots["grad_avg"], gradient, 1 - o.alpha)
            assign(slots["grad_avg"], mean)
            spread = squares - mean * mean
        direction = gradient / (flow.sqrt(spread) + o.eps)
        if not isinstance(momentum, float) or momentum:
            direction = slots["momentum_buffer"] * momentum + direction
            assign(slots["momentum_buffer"], direction)
        apply_step(parameter, direction, scalars["rate"])


@final
class AdagradRule(UpdateRule[Adagrad]):
    """``torch.optim.Adagrad``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"sum": self.optimizer.initial_accumulator_value}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step = counters["step"]
        return {"rate": numbers.rate / (1 + step * self.optimizer.lr_decay)}, {"step": step + 1}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        if parameter.dtype == flow.float32 and not self.optimizer.maximize:
            self._update_natively(parameter, gradient, slots["sum"], scalars["rate"])
            return
        gradient = self.add_decay(parameter, gradient)
        total = slots["sum"] + gradient * gradient
        assign(slots["sum"], total)
        apply_step(parameter, gradient / (flow.sqrt(total) + self.optimizer.eps), scalars["rate"])

    def _update_natively(self, parameter: Tensor, gradient: Tensor, total: Tensor, rate: Number) -> None:
        """Update by OneFlow's own op. ``lr_decay`` is already in the rate: OneFlow has one count for all parameters."""
        op = flow.stateful_op("adagrad_update").Input("model").Input("model_diff").Input("sum")
        fixed = isinstance(rate, float)
        flow._C.dispatch_adagrad_update(
            op.Build() if fixed else op.Input("learning_rate").Build(),
            (parameter, gradient, total) if fixed else (parameter, gradient, total, as_vector(rate)),
            learning_rate=rate if fixed else 0.0,
            l2=self.optimizer.weight_decay,
            epsilon=self.optimizer.eps,
            lr_decay=0.0,
            train_step_val=1,
        )


@final
class AdadeltaRule(UpdateRule[Adadelta]):
    """``torch.optim.Adadelta``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        return {"rate": numbers.rate}, {}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        o = self.optimizer
        gradient = self.add_decay(parameter, gradient)
        squares = update_mean_square(slots["square_avg"], gradient, o.rho)
        delta = flow.sqrt(slots["acc_delta"] + o.eps) / flow.sqrt(squares + o.eps) * gradient
        assign(slots["square_avg"], squares)
        assign(slots["acc_delta"], update_mean_square(slots["acc_delta"], delta, o.rho))
        apply_step(parameter, delta, scalars["rate"])
