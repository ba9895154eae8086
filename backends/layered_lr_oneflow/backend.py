"""What the OneFlow backends have in common: everything but the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from layered_lr.backend.base import Backend, Dtype
from layered_lr.errors import SpecError
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow import models, own_loop
from layered_lr_oneflow.clipping import Clipping, clip_before_step
from layered_lr_oneflow.float32_rates import GraphRates
from layered_lr_oneflow.lowering import has_native_updates
from layered_lr_oneflow.optimizer import (
    EagerScale,
    PlanScheduler,
    build_optimizer,
    composed_optimizer,
    param_groups,
)
from layered_lr_oneflow.runtime import flow


def pick_device(device: str) -> str:
    """The OneFlow device of that name; ``"auto"`` is the GPU where there is one.

    Raises:
        SpecError: No such device here (OneFlow would abort the process).
    """
    if device == "auto":
        return "cuda" if flow.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise SpecError(f"device={device!r}: OneFlow backends take 'cpu', 'cuda' or 'auto'.")
    if device == "cuda" and not flow.cuda.is_available():
        raise SpecError("device='cuda': OneFlow finds no GPU here. Use device='cpu' or 'auto'.")
    return device


class OneFlowBackend(Backend):
    """Builds OneFlow models and serves loops of the user's own."""

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)

    def build(
        self, model: str | Callable[[], Any], num_classes: int, dropout: float, seed: int, dtype: Dtype = "float32"
    ) -> Any:
        """See ``Backend.build``."""
        return models.build(model, num_classes, dropout, seed, self.device).to(self.device, getattr(flow, dtype))

    def load(self, model: Any, weights: Mapping[str, NDArray[Any]]) -> None:
        """See ``Backend.load``."""
        models.load(model, weights)

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        """See ``Backend.state``."""
        return models.state(model)

    def compile(self, plan: Plan, model: Any) -> tuple[Any, PlanScheduler]:
        """See ``Backend.compile``; for eager mode, a graph takes ``layered_lr.attach``. ``step()`` clips first."""
        optimizer, scheduler = build_eager(plan, model)
        clip_before_step(optimizer, Clipping(plan, model))
        return optimizer, scheduler

    def export_loop(self, model: Any, optimizer: Any, scheduler: Any) -> TrainingState:
        """See ``Backend.export_loop``."""
        return own_loop.export_loop(model, optimizer, scheduler)

    def import_loop(self, state: TrainingState, model: Any, optimizer: Any, scheduler: Any) -> None:
        """See ``Backend.import_loop``."""
        own_loop.import_loop(state, model, optimizer, scheduler)


def build_eager(plan: Plan, model: Any, step: int = 0) -> tuple[Any, PlanScheduler]:
    """An optimizer and a scheduler for eager mode, where ``lr_scale`` is folded into the rates, ready for an update.

    OneFlow 0.9's eager optimizers ignore ``lr_scale``, silently. The optimizer is OneFlow's own where that equals
    torch's, else a ``ComposedOptimizer``.
    """
    if not has_native_updates(plan):
        composed = composed_optimizer(plan, model)
        return composed, PlanScheduler(composed, plan, range(len(plan.groups)), step)
    rates = GraphRates(plan).rates(step)
    placed = param_groups(plan, model)
    for index, options in placed:
        options.update(lr=rates[index], lr_scale=EagerScale(1.0))
    optimizer = build_optimizer(plan, [options for _, options in placed])
    return optimizer, PlanScheduler(optimizer, plan, [index for index, _ in placed], step)
