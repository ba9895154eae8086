"""RMSprop, Adagrad, Adadelta and Adafactor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from layered_lr.optimizers import Adadelta, Adafactor, Adagrad, RMSprop
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.broadcasting import divide, multiply
from layered_lr_oneflow.rules.base import (
    Number,
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotStart,
    SlotTensors,
    UpdateRule,
    apply_step,
    as_vector,
    assign,
    choose,
    lerp,
    norm,
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


@final
class AdafactorRule(UpdateRule[Adafactor]):
    """``torch.optim.Adafactor``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots of a parameter of at most one dimension, and the number that fills each at first."""
        return {"variance": 0.0}

    def list_slots(self, shape: tuple[int, ...]) -> Mapping[str, SlotStart]:
        """The slots of a parameter of this shape: of a matrix, or a stack of them, only means of rows and columns."""
        if len(shape) < 2:
            return super().list_slots(shape)
        row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
        return {"row_var": SlotStart(row, 0.0), "col_var": SlotStart(column, 0.0)}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step = counters["step"] + 1
        share, slowest = step**self.optimizer.beta2_decay, 1 / step**0.5
        scalars = {
            "share": share,
            "rest": 1 - share,
            "is_new": choose(share >= 0.5, 1.0, 0.0),
            "step_size": choose(slowest < numbers.rate, slowest, numbers.rate),
            "kept": 1 - numbers.rate * self.optimizer.weight_decay,
        }
        return scalars, {"step": step}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        o, gradient = self.optimizer, self.orient_gradient(gradient)
        eps, least = o.eps[0], o.eps[1]
        if eps is None:
            eps = 2.0**-52 if parameter.dtype == flow.float64 else 2.0**-23
        squares = gradient * gradient
        if parameter.ndim > 1:
            rows = _forget(slots["row_var"], squares.mean(dim=-1, keepdim=True), scalars)
            columns = _forget(slots["col_var"], squares.mean(dim=-2, keepdim=True), scalars)
            assign(slots["row_var"], rows)
            assign(slots["col_var"], columns)
            spread = divide(multiply(rows, columns), flow.clamp(rows.mean(dim=-2, keepdim=True), min=eps))
        else:
            spread = _forget(slots["variance"], squares, scalars)
            assign(slots["variance"], spread)
        direction = gradient / flow.sqrt(flow.clamp(spread, min=eps * eps))
        root = parameter.numel() ** 0.5
        length = flow.clamp(norm(direction) / (root * o.d), min=1.0)
        size = flow.clamp(norm(parameter) / root, min=least) * scalars["step_size"]
        kept = parameter * scalars["kept"] if o.weight_decay else parameter
        assign(parameter, kept - direction * (size / length))


def _forget(old: Tensor, new: Tensor, scalars: Scalars) -> Tensor:
    """Mix a mean square with a new one, rounded as torch's ``lerp`` rounds; the share may be a number of a graph."""
    share, is_new = scalars["share"], scalars["is_new"]
    if isinstance(is_new, float):
        return lerp(old, new, share)
    share, rest = (flow.reshape(scalars[name], (1,) * old.ndim) for name in ("share", "rest"))
    return flow.where(share >= 0.5, new - (new - old) * rest, old + (new - old) * share)
