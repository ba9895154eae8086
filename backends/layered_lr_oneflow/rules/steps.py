"""ASGD and Rprop, whose steps depend on what the update before left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from layered_lr.optimizers import ASGD, Rprop
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.broadcasting import is_greater, is_less
from layered_lr_oneflow.rules.base import (
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotTensors,
    UpdateRule,
    as_float32,
    assign,
    choose,
)
from layered_lr_oneflow.runtime import flow


@final
class ASGDRule(UpdateRule[ASGD]):
    """``torch.optim.ASGD``; ``eta`` and ``mu`` are float32, as in torch, also in float64 training."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"ax": 0.0}

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates, the rate of its next update, and the weight in the average."""
        return {"step": 0, "eta": 0.0, "mu": 1.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        o, step = self.optimizer, counters["step"] + 1
        eta = choose(counters["step"] == 0, as_float32(numbers.rate), counters["eta"])
        following = as_float32(numbers.rate / (1 + o.lambd * numbers.rate * step) ** o.alpha)
        late = choose(step - o.t0 > 1, step - o.t0, 1.0)
        scalars = {
            "eta": eta,
            "kept": 1 - o.lambd * eta,
            "mu": counters["mu"],
            "averages": choose(counters["mu"] == 1, 0.0, 1.0),
        }
        return scalars, {"step": step, "eta": following, "mu": as_float32(1 / late)}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        gradient = self.add_decay(parameter, gradient)
        moved = parameter * scalars["kept"] - gradient * scalars["eta"]
        average, averages = slots["ax"] + (moved - slots["ax"]) * scalars["mu"], scalars["averages"]
        if isinstance(averages, float):
            assign(slots["ax"], average if averages else moved)
        else:
            assign(slots["ax"], flow.where(averages > 0, average, moved))
        assign(parameter, moved)


@final
class RpropRule(UpdateRule[Rprop]):
    """``torch.optim.Rprop``."""

    @property
    def counters(self) -> Mapping[str, float]:
        """The count of the parameter's updates."""
        return {"step": 0}

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first; the first update begins the step at its rate."""
        return {"prev": 0.0, "step_size": 0.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        is_first = counters["step"] == 0
        scalars = {"first": choose(is_first, numbers.rate, 0.0), "kept": choose(is_first, 0.0, 1.0)}
        return scalars, {"step": counters["step"] + 1}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        (less, more), (least, most) = self.optimizer.etas, self.optimizer.step_sizes
        gradient = self.orient_gradient(gradient)
        agrees = gradient * slots["prev"]
        grows, shrinks = (which.to(gradient.dtype) for which in (is_greater(agrees, 0), is_less(agrees, 0)))
        factor = grows * more + shrinks * less + (1 - grows - shrinks)
        size = flow.clamp((slots["step_size"] * scalars["kept"] + scalars["first"]) * factor, min=least, max=most)
        gradient = gradient * (1 - shrinks)
        assign(slots["step_size"], size)
        assign(slots["prev"], gradient)
        assign(parameter, parameter - flow.sign(gradient) * size)
