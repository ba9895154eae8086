"""Adam and the optimizers like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, final

from layered_lr.optimizers import LAMB, Adam, Adamax, AdamW, Lion, NAdam, Optimizer, RAdam
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.broadcasting import is_greater
from layered_lr_oneflow.rules.base import (
    Number,
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotTensors,
    UpdateRule,
    apply_step,
    as_float32,
    assign,
    choose,
    lerp,
    norm,
    update_mean_square,
)
from layered_lr_oneflow.runtime import flow

M = TypeVar("M", Adam, AdamW, NAdam, RAdam, LAMB, Adam | AdamW)


class MomentsRule(UpdateRule[M]):
    """What optimizers share that keep a running mean of the gradient and one of its square."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def update_moments(self, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> tuple[Tensor, Tensor]:
        """Update both running means with this gradient; returns them."""
        mean = lerp(slots["exp_avg"], gradient, scalars["share"])
        squares = update_mean_square(slots["exp_avg_sq"], gradient, self.optimizer.betas[1])
        assign(slots["exp_avg"], mean)
        assign(slots["exp_avg_sq"], squares)
        return mean, squares

    def compute_corrections(self, numbers: RateAndMomentum, step: Number) -> tuple[Number, Number]:
        """Compute Adam's bias corrections of both means; the first uses the beta of this update, as in torch."""
        return 1 - numbers.momentum**step, 1 - self.optimizer.betas[1] ** step

    def compute_decoupled_decay(self, numbers: RateAndMomentum) -> dict[str, Number]:
        """Compute the factor that decoupled decay multiplies the weights with; empty without decoupled decay."""
        decay = self.optimizer.weight_decay
        return {"kept": 1 - numbers.rate * decay} if decay and is_decoupled(self.optimizer) else {}

    def apply_decay(self, parameter: Tensor, gradient: Tensor, scalars: Scalars) -> tuple[Tensor, Tensor]:
        """Apply weight decay to the parameter if it is decoupled, else to the gradient; also apply ``maximize``.

        Returns:
            The parameter and the gradient after that.
        """
        if is_decoupled(self.optimizer):
            kept = parameter * scalars["kept"] if "kept" in scalars else parameter
            return kept, self.orient_gradient(gradient)
        return parameter, self.add_decay(parameter, gradient)


def is_decoupled(optimizer: Optimizer) -> bool:
    """Whether weight decay shrinks the weights directly, instead of adding to the gradient."""
    return isinstance(optimizer, AdamW) or bool(getattr(optimizer, "decoupled_weight_decay", False))


def step_down(parameter: Tensor, kept: Tensor, direction: Tensor, rate: Number) -> None:
    """Compute ``parameter = kept - rate * direction``.

    Args:
        parameter: Is written.
        kept: The parameter itself, or what decoupled decay left of it.
        direction: Of the update.
        rate: The learning rate.
    """
    if kept is parameter:
        apply_step(parameter, direction, rate)
    else:
        assign(parameter, kept - direction * rate)


@final
class AdamRule(MomentsRule[Adam | AdamW]):
    """``torch.optim.Adam`` and ``torch.optim.AdamW``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {**super().slots, **({"max_exp_avg_sq": 0.0} if self.optimizer.amsgrad else {})}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step = counters["step"] + 1
        first, second = self.compute_corrections(numbers, step)
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate / first, "correction": second**0.5}
        return scalars | self.compute_decoupled_decay(numbers), {"step": step}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        kept, gradient = self.apply_decay(parameter, gradient, scalars)
        mean, squares = self.update_moments(gradient, slots, scalars)
        if self.optimizer.amsgrad:
            squares = flow.maximum(slots["max_exp_avg_sq"], squares)
            assign(slots["max_exp_avg_sq"], squares)
        direction = mean / (flow.sqrt(squares) / scalars["correction"] + self.optimizer.eps)
        step_down(parameter, kept, direction, scalars["rate"])


@final
class NAdamRule(MomentsRule[NAdam]):
    """``torch.optim.NAdam``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates, and the product of the momenta so far."""
        return {"step": 0, "mu_product": 1.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update; ``mu_product`` is float32, as in torch, also in float64 training."""
        step, beta, decay = counters["step"] + 1, numbers.momentum, self.optimizer.momentum_decay
        mu = beta * (1 - 0.5 * 0.96 ** (step * decay))
        following = beta * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        product = as_float32(counters["mu_product"] * as_float32(mu))
        scalars = {
            "share": 1 - beta,
            "correction": self.compute_corrections(numbers, step)[1],
            "gradient_rate": numbers.rate * (1 - mu) / (1 - product),
            "mean_rate": numbers.rate * following / (1 - product * following),
        }
        return scalars | self.compute_decoupled_decay(numbers), {"step": step, "mu_product": product}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        kept, gradient = self.apply_decay(parameter, gradient, scalars)
        mean, squares = self.update_moments(gradient, slots, scalars)
        size = flow.sqrt(squares / scalars["correction"]) + self.optimizer.eps
        ahead = gradient / size * scalars["gradient_rate"]
        assign(parameter, kept - ahead - mean / size * scalars["mean_rate"])


@final
class RAdamRule(MomentsRule[RAdam]):
    """``torch.optim.RAdam``: while the running mean is shorter than 5, the step is the corrected mean itself."""

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step, beta2 = counters["step"] + 1, self.optimizer.betas[1]
        first, second = self.compute_corrections(numbers, step)
        longest = 2 / (1 - beta2) - 1
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate / first} | self.compute_decoupled_decay(numbers)
        if longest > 5:
            length = longest - 2 * step * beta2**step / second
            factor = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            factor = choose(length > 5.0, factor, 0.0)
            scalars |= {"rectified": factor, "adaptive": scalars["rate"] * factor**0.5 * second**0.5}
        return scalars, {"step": step}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        kept, gradient = self.apply_decay(parameter, gradient, scalars)
        mean, squares = self.update_moments(gradient, slots, scalars)
        rectified, plain = scalars.get("rectified", 0.0), mean * scalars["rate"]
        if isinstance(rectified, float) and not rectified:
            assign(parameter, kept - plain)
            return
        adaptive = mean * scalars["adaptive"] / (flow.sqrt(squares) + self.optimizer.eps)
        assign(
            parameter, kept - (adaptive if isinstance(rectified, float) else flow.where(rectified > 0, adaptive, plain))
        )


@final
class AdamaxRule(UpdateRule[Adamax]):
    """``torch.optim.Adamax``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step = counters["step"] + 1
        rate = numbers.rate / (1 - numbers.momentum**step)
        return {"share": 1 - numbers.momentum, "rate": rate}, {"step": step}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        gradient = self.add_decay(parameter, gradient)
        mean = lerp(slots["exp_avg"], gradient, scalars["share"])
        largest = flow.maximum(slots["exp_inf"] * self.optimizer.betas[1], flow.abs(gradient) + self.optimizer.eps)
        assign(slots["exp_avg"], mean)
        assign(slots["exp_inf"], largest)
        apply_step(parameter, mean / largest, scalars["rate"])


@final
class LAMBRule(MomentsRule[LAMB]):
    """Adam's update scaled by a trust ratio; ``layered_lr.LAMB`` has the formula and the paper."""

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        step = counters["step"] + 1
        first, second = self.compute_corrections(numbers, step)
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate, "first": first, "second": second**0.5}
        return scalars, {"step": step}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        mean, squares = self.update_moments(self.orient_gradient(gradient), slots, scalars)
        direction = mean / scalars["first"] / (flow.sqrt(squares) / scalars["second"] + self.optimizer.eps)
        if self.optimizer.weight_decay:
            direction = direction + parameter * self.optimizer.weight_decay
        size, length = norm(parameter), norm(direction)
        trust = flow.where(is_greater(size, 0).logical_and(is_greater(length, 0)), size / length, flow.ones_like(size))
        apply_step(parameter, direction * trust, scalars["rate"])


@final
class LionRule(UpdateRule[Lion]):
    """Steps by the sign of a running mean; ``layered_lr.Lion`` has the formula and the paper."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"exp_avg": 0.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        kept = {"kept": 1 - numbers.rate * self.optimizer.weight_decay} if self.optimizer.weight_decay else {}
        return {"rate": numbers.rate, "momentum": numbers.momentum, "share": 1 - numbers.momentum, **kept}, {}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        gradient, mean, beta2 = self.orient_gradient(gradient), slots["exp_avg"], self.optimizer.betas[1]
        kept = parameter * scalars["kept"] if "kept" in scalars else parameter
        direction = flow.sign(mean * scalars["momentum"] + gradient * scalars["share"])
        assign(mean, mean * beta2 + gradient * (1 - beta2))
        step_down(parameter, kept, direction, scalars["rate"])
