"""Adam and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, final

from layered_lr.optimizers import LAMB, Adam, Adamax, AdamW, Lion, NAdam, RAdam
from layered_lr_oneflow.rules.base import (
    Number,
    Numbers,
    Scalars,
    Slots,
    UpdateRule,
    as_float32,
    assign,
    choose,
    descend,
    lerp,
    mean_square,
    norm,
)
from layered_lr_oneflow.runtime import flow

M = TypeVar("M", Adam, AdamW, NAdam, RAdam, LAMB, Adam | AdamW)


class MomentsRule(UpdateRule[M]):
    """What optimizers with a running mean of the gradient and one of its square have in common."""

    @property
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def moments(self, gradient: Any, slots: Slots, scalars: Scalars) -> tuple[Any, Any]:
        """Both running means with this gradient in them; they are written."""
        mean = lerp(slots["exp_avg"], gradient, scalars["share"])
        squares = mean_square(slots["exp_avg_sq"], gradient, self.optimizer.betas[1])
        assign(slots["exp_avg"], mean)
        assign(slots["exp_avg_sq"], squares)
        return mean, squares

    def corrections(self, numbers: Numbers, step: Number) -> tuple[Number, Number]:
        """Adam's bias corrections of both means; the first with the beta of this very update, as in torch."""
        return 1 - numbers.momentum**step, 1 - self.optimizer.betas[1] ** step

    def decoupled(self, numbers: Numbers) -> dict[str, Number]:
        """What the decoupled decay of this update leaves of the weights."""
        decay = self.optimizer.weight_decay
        return {"kept": 1 - numbers.rate * decay} if decay and is_decoupled(self.optimizer) else {}

    def with_decay(self, parameter: Any, gradient: Any, scalars: Scalars) -> tuple[Any, Any]:
        """Parameter and gradient with the decay in the one or the other, and ``maximize``."""
        if is_decoupled(self.optimizer):
            kept = parameter * scalars["kept"] if "kept" in scalars else parameter
            return kept, self.uphill(gradient)
        return parameter, self.decayed(parameter, gradient)


def is_decoupled(optimizer: Any) -> bool:
    """Whether the weights themselves decay, times the rate."""
    return isinstance(optimizer, AdamW) or bool(getattr(optimizer, "decoupled_weight_decay", False))


def step_down(parameter: Any, kept: Any, direction: Any, rate: Number) -> None:
    """``parameter = kept - rate * direction``, where ``kept`` is the parameter or what a decay left of it."""
    if kept is parameter:
        descend(parameter, direction, rate)
    else:
        assign(parameter, kept - direction * rate)


@final
class AdamRule(MomentsRule[Adam | AdamW]):
    """``torch.optim.Adam`` and ``torch.optim.AdamW``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {**super().slots, **({"max_exp_avg_sq": 0.0} if self.optimizer.amsgrad else {})}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        step = carried["step"] + 1
        first, second = self.corrections(numbers, step)
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate / first, "correction": second**0.5}
        return scalars | self.decoupled(numbers), {"step": step}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        kept, gradient = self.with_decay(parameter, gradient, scalars)
        mean, squares = self.moments(gradient, slots, scalars)
        if self.optimizer.amsgrad:
            squares = flow.maximum(slots["max_exp_avg_sq"], squares)
            assign(slots["max_exp_avg_sq"], squares)
        direction = mean / (flow.sqrt(squares) / scalars["correction"] + self.optimizer.eps)
        step_down(parameter, kept, direction, scalars["rate"])


@final
class NAdamRule(MomentsRule[NAdam]):
    """``torch.optim.NAdam``."""

    @property
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return {"step": 0, "mu_product": 1.0}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``; torch holds ``mu_product`` in float32 in float64 training too."""
        step, beta, decay = carried["step"] + 1, numbers.momentum, self.optimizer.momentum_decay
        mu = beta * (1 - 0.5 * 0.96 ** (step * decay))
        following = beta * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        product = as_float32(carried["mu_product"] * as_float32(mu))
        scalars = {
            "share": 1 - beta,
            "correction": self.corrections(numbers, step)[1],
            "gradient_rate": numbers.rate * (1 - mu) / (1 - product),
            "mean_rate": numbers.rate * following / (1 - product * following),
        }
        return scalars | self.decoupled(numbers), {"step": step, "mu_product": product}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        kept, gradient = self.with_decay(parameter, gradient, scalars)
        mean, squares = self.moments(gradient, slots, scalars)
        size = flow.sqrt(squares / scalars["correction"]) + self.optimizer.eps
        ahead = gradient / size * scalars["gradient_rate"]
        assign(parameter, kept - ahead - mean / size * scalars["mean_rate"])


@final
class RAdamRule(MomentsRule[RAdam]):
    """``torch.optim.RAdam``: until the length of the running mean is 5, the step is the corrected mean itself."""

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        step, beta2 = carried["step"] + 1, self.optimizer.betas[1]
        first, second = self.corrections(numbers, step)
        longest = 2 / (1 - beta2) - 1
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate / first} | self.decoupled(numbers)
        if longest > 5:
            length = longest - 2 * step * beta2**step / second
            factor = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            factor = choose(length > 5.0, factor, 0.0)
            scalars |= {"rectified": factor, "adaptive": scalars["rate"] * factor**0.5 * second**0.5}
        return scalars, {"step": step}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        kept, gradient = self.with_decay(parameter, gradient, scalars)
        mean, squares = self.moments(gradient, slots, scalars)
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
    def carried(self) -> Mapping[str, float]:
        """See ``UpdateRule.carried``."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        step = carried["step"] + 1
        rate = numbers.rate / (1 - numbers.momentum**step)
        return {"share": 1 - numbers.momentum, "rate": rate}, {"step": step}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        gradient = self.decayed(parameter, gradient)
        mean = lerp(slots["exp_avg"], gradient, scalars["share"])
        largest = flow.maximum(slots["exp_inf"] * self.optimizer.betas[1], flow.abs(gradient) + self.optimizer.eps)
        assign(slots["exp_avg"], mean)
        assign(slots["exp_inf"], largest)
        descend(parameter, mean / largest, scalars["rate"])


@final
class LAMBRule(MomentsRule[LAMB]):
    """See ``layered_lr.LAMB`` for the formula and the paper."""

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        step = carried["step"] + 1
        first, second = self.corrections(numbers, step)
        scalars = {"share": 1 - numbers.momentum, "rate": numbers.rate, "first": first, "second": second**0.5}
        return scalars, {"step": step}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        mean, squares = self.moments(self.uphill(gradient), slots, scalars)
        direction = mean / scalars["first"] / (flow.sqrt(squares) / scalars["second"] + self.optimizer.eps)
        if self.optimizer.weight_decay:
            direction = direction + parameter * self.optimizer.weight_decay
        size, length = norm(parameter), norm(direction)
        trust = flow.where((size > 0).logical_and(length > 0), size / length, flow.ones_like(size))
        descend(parameter, direction * trust, scalars["rate"])


@final
class LionRule(UpdateRule[Lion]):
    """See ``layered_lr.Lion`` for the formula and the paper."""

    @property
    def slots(self) -> Mapping[str, float]:
        """See ``UpdateRule.slots``."""
        return {"exp_avg": 0.0}

    def scalars(self, numbers: Numbers, carried: Scalars) -> tuple[dict[str, Number], dict[str, Number]]:
        """See ``UpdateRule.scalars``."""
        kept = {"kept": 1 - numbers.rate * self.optimizer.weight_decay} if self.optimizer.weight_decay else {}
        return {"rate": numbers.rate, "share": 1 - numbers.momentum, **kept}, {}

    def update(self, parameter: Any, gradient: Any, slots: Slots, scalars: Scalars) -> None:
        """See ``UpdateRule.update``."""
        gradient = self.uphill(gradient)
        kept = parameter * scalars["kept"] if "kept" in scalars else parameter
        direction = flow.sign(lerp(slots["exp_avg"], gradient, scalars["share"]))
        assign(slots["exp_avg"], lerp(slots["exp_avg"], gradient, 1 - self.optimizer.betas[1]))
        step_down(parameter, kept, direction, scalars["rate"])
