"""RMSprop, Adagrad and Adadelta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from layered_lr.optimizers import Adadelta, Adagrad, RMSprop
from layered_lr_oneflow.rules.base import (
    Number,
    Numbers,
    Scalars,
    Slots,
    UpdateRule,
    as_vector,
    assign,
    descend,
    lerp,
    mean_square,
)
from layered_lr_oneflow.runtime import flow


@final
class RMSpropRule(UpdateRule[RMSprop]):
    """``torch.optim.RMSprop``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        o = self.optimizer
        return {
            "square_avg": 0.0,
            **({"grad_avg": 0.0} if o.centered else {}),
            **({"momentum_buffer": 0.0} if o.momentum else {}),
        }

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        return {"rate": numbers.rate, "momentum": numbers.momentum}, {}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        o, momentum = self.optimizer, scalars["momentum"]
        gradient = self.decayed(parameter, gradient)
        spread = squares = mean_square(slots["square_avg"], gradient, o.alpha)
        assign(slots["square_avg"], squares)
        if o.centered:
            mean = lerp(slots["grad_avg"], gradient, 1 - o.alpha)
            assign(slots["grad_avg"], mean)
            spread = squares - mean * mean
        direction = gradient / (flow.sqrt(spread) + o.eps)
        if not isinstance(momentum, float) or momentum:
            direction = slots["momentum_buffer"] * momentum + direction
            assign(slots["momentum_buffer"], direction)
        descend(parameter, direction, scalars["rate"])


@final
class AdagradRule(UpdateRule[Adagrad]):
    """``torch.optim.Adagrad``."""

    @property
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"sum": self.optimizer.initial_accumulator_value}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        step = carried["step"]
        return {"rate": numbers.rate / (1 + step * self.optimizer.lr_decay)}, {"step": step + 1}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        if parameter.dtype == flow.float32 and not self.optimizer.maximize:
            self._native(parameter, gradient, slots["sum"], scalars["rate"])
            return
        gradient = self.decayed(parameter, gradient)
        total = slots["sum"] + gradient * gradient
        assign(slots["sum"], total)
        descend(parameter, gradient / (flow.sqrt(total) + self.optimizer.eps), scalars["rate"])

    def _native(self, parameter: Any, gradient: Any, total: Any, rate: Number) -> None:
        """OneFlow's own op, at a rate that has ``lr_decay`` in it: OneFlow counts for all parameters at once."""
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
        """See ``UpdateRule.slots``."""
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        return {"rate": numbers.rate}, {}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        o = self.optimizer
        gradient = self.decayed(parameter, gradient)
        squares = mean_square(slots["square_avg"], gradient, o.rho)
        delta = flow.sqrt(slots["acc_delta"] + o.eps) / flow.sqrt(squares + o.eps) * gradient
        assign(slots["square_avg"], squares)
        assign(slots["acc_delta"], mean_square(slots["acc_delta"], delta, o.rho))
        descend(parameter, delta, scalars["rate"])
