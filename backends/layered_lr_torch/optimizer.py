"""A plan as torch's own optimizer and a torch scheduler."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from layered_lr.errors import Unsupported
from layered_lr.live import LiveRates
from layered_lr.modules import parameters_of
from layered_lr.plans import Plan


def build_optimizer(plan: Plan, model: torch.nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer of the plan's name, with one param group per plan group, in its order.

    A param group's ``lr`` is its rate at step 0, ``lr_scale`` folded in, because torch's optimizers have none.

    Raises:
        Unsupported: torch has no optimizer of that name.
    """
    kind = type(plan.spec.optimizer).__name__
    optimizer = getattr(torch.optim, kind, None)
    if optimizer is None:
        raise Unsupported(f"torch has no optimizer {kind}.")
    objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    groups: list[dict[str, Any]] = [
        {**asdict(group.optimizer), "lr": rate, "name": group.name, "params": [objects[n] for n in group.parameters]}
        for group, rate in zip(plan.groups, plan.rates(0), strict=True)
    ]
    return optimizer(groups)  # type: ignore[no-any-return]


class PlanScheduler(LRScheduler):
    """Sets every param group's rate to the plan's; call ``step()`` after each ``optimizer.step()``.

    It counts updates, also where a schedule has ``unit="epoch"``. ``step(metrics=...)`` counts nothing: it lets
    ``ReduceLROnPlateau`` look at a metric, whenever there is one. Its state is the count and what reactive
    schedules have seen: the rates are the plan's, so that a state loads whatever the rates were when it was saved.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        self.live = LiveRates(plan)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override] # torch also allows tensors
        """The rates at the current step."""
        return self.live.rates(self.last_epoch)

    def step(self, epoch: int | None = None, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric.

        Args:
            epoch: As in torch's schedulers, deprecated there: the update to go to.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
        """
        if metrics is not None:
            self.observe(metrics)
            return
        super().step(epoch)
        self._set_momenta()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric; see ``LiveRates.observe``."""
        self.live.observe(metrics, unit)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in torch's names, and the state of reactive schedules."""
        state = {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": list(self._last_lr)}
        return state | ({"reactions": self.live.state()} if self.live.is_reactive else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count, at the plan's rates for it."""
        self.live.restore(state_dict.get("reactions", {}))
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self._apply()

    def _apply(self) -> None:
        self._last_lr = list(self.get_lr())
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        self._set_momenta()

    def _set_momenta(self) -> None:
        for group, momentum in zip(self.optimizer.param_groups, self.live.plan.momenta(self.last_epoch), strict=True):
            if momentum is not None:
                group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})
