"""What both OneFlow backends share: everything except the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Arrays, Float32, Floats, Weights
from layered_lr.backend.base import Backend, Dtype
from layered_lr.backend.output_checks import check_logits
from layered_lr.backend.processes import Launch
from layered_lr.backend.session import Extras
from layered_lr.errors import SpecError
from layered_lr.losses import FunctionLoss, LossSettings
from layered_lr.plans.group import list_kinds
from layered_lr.plans.param_groups import list_param_groups
from layered_lr.plans.plan import Plan
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow import models, own_loop
from layered_lr_oneflow.build_model import build_users_model
from layered_lr_oneflow.clipping import GradientClipper, clip_before_step
from layered_lr_oneflow.eager_tensors import sync
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.losses import make_loss, translate_loss
from layered_lr_oneflow.lowering import check_optimizers, has_native_updates
from layered_lr_oneflow.oneflow_types import Module, NativeOptimizer, Options
from layered_lr_oneflow.optimizer import (
    EagerScale,
    PlanScheduler,
    build_composed_optimizer,
    build_optimizer,
    build_param_groups,
)
from layered_lr_oneflow.own_loop_phases import PhaseScheduler
from layered_lr_oneflow.own_optimizer import build_scheduler
from layered_lr_oneflow.processes import OneFlowProcesses, check_batch_norm
from layered_lr_oneflow.runtime import flow

_LOGITS_DTYPES = ("float32", "float64")


def pick_device(device: str) -> str:
    """Find the OneFlow device of a name; ``"auto"`` is the GPU if there is one, else the CPU.

    Raises:
        SpecError: This machine has no such device (OneFlow would abort the process).
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

    together: OneFlowProcesses | None = None
    """Those that train together with this one."""

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)

    def join(self, launch: Launch) -> OneFlowProcesses:
        """Connect this process with the others."""
        self.processes = self.together = OneFlowProcesses(launch)
        return self.together

    def check_together(self, extras: Extras) -> None:
        """Refuse in one of several processes what they cannot do together.

        Raises:
            Unsupported: Statistics over the images of all processes.
        """
        if self.together is not None:
            self.together.agree(lambda: check_batch_norm(extras))

    def build(
        self,
        model: str | Callable[[], Any],
        num_classes: int,
        dropout: float,
        seed: int,
        dtype: Dtype = "float32",
        batch_shape: tuple[int, ...] | None = None,
        other_shapes: Sequence[tuple[int, ...]] = (),
    ) -> Module:
        """Make a new model of the given dtype on the backend's device; one of torch's is translated."""
        if not isinstance(model, str):
            return build_users_model(model, seed, dtype, self.device, batch_shape, other_shapes)
        return models.build_model(model, num_classes, dropout, seed, self.device).to(self.device, getattr(flow, dtype))

    def load(self, model: Module, weights: Weights) -> None:
        """Copy arrays into the model's parameters and buffers, by name."""
        models.load_state(model, weights)

    def state(self, model: Module) -> dict[str, Array]:
        """Copy the model's parameters and buffers to arrays, by name."""
        return models.copy_state(model)

    def load_unsaved(self, model: Module, arrays: Arrays) -> None:
        """Copy arrays into the buffers that ``state_dict()`` leaves out; extra states are torch's alone."""
        models.load_unsaved(
            model, {name: array for name, array in arrays.items() if name in models.find_unsaved(model)}
        )

    def answer(self, model: Module, images: Float32, num_classes: int) -> Array:
        """Compute a model's logits in evaluation mode, op by op, shape (N, outputs)."""
        sync()
        model.eval()
        with flow.no_grad():
            logits = model(flow.tensor(images, dtype=models.find_dtype(model), device=self.device))
            check_logits(logits, len(images), num_classes, _LOGITS_DTYPES)
            numbers: Array = logits.numpy().copy()
        return numbers

    def prepare_loss(
        self,
        loss: LossSettings,
        model: Module,
        batch_shape: tuple[int, ...],
        classes: int = 0,
        targets: Array | None = None,
        has_shares: bool = False,
    ) -> LossSettings:
        """Translate a loss that is written in torch; a model that is written in OneFlow has one of OneFlow."""
        if not isinstance(loss, FunctionLoss) or not type(model).__module__.startswith("layered_lr_oneflow."):
            return loss
        count = max(2, batch_shape[0]) if targets is None else len(targets)
        outputs = self.answer(model, np.zeros((count, *batch_shape[1:]), np.float32), classes)
        if targets is None and has_shares:
            targets = np.full((count, classes), 1 / classes, outputs.dtype)
        elif targets is None:
            targets = np.arange(count, dtype=np.int64) % classes  # several classes: a loss may ignore one
        elif targets.dtype.kind == "f":
            targets = targets.astype(outputs.dtype)
        return translate_loss(loss, outputs, targets, self.device)

    def measure_loss(self, loss: LossSettings, outputs: Floats, targets: Array) -> float:
        """Return the loss of outputs that are known."""
        with flow.no_grad():
            wanted = targets.astype(outputs.dtype) if targets.dtype.kind == "f" else targets
            given = (flow.tensor(array, device=self.device) for array in (outputs, wanted))
            return float(make_loss(loss)(*given).numpy())

    def compile(self, plan: Plan, model: Module) -> tuple[NativeOptimizer, PlanScheduler]:
        """Make an eager optimizer for the model, and its scheduler, for a loop of the user's own.

        The optimizer's ``step()`` clips gradients first, if the plan clips. With phases it is a ``ComposedOptimizer``:
        phases may change every hyperparameter, and each parameter counts its own updates. For a graph use
        ``layered_lr.attach``.
        """
        if plan.phases:
            check_single_optimizer(plan)
            for there in plan.phase_plans:
                check_optimizers(there)
            first = plan.plan_at(0)
            composed, clipper = build_composed_optimizer(first, model), GradientClipper(first, model)
            return composed, PhaseScheduler(composed, plan, model, clipper, range(len(plan.groups)))
        optimizer, scheduler = build_eager_optimizer(plan, model)
        clip_before_step(optimizer, GradientClipper(plan, model))
        return optimizer, scheduler

    def list_param_groups(self, plan: Plan, model: Module, divides_always: bool) -> list[Options]:
        """Make the param groups of a plan for an optimizer of any class, in eager mode."""
        return list_param_groups(plan, model, divides_always, by_hand=())

    def build_scheduler(self, plan: Plan, optimizer: Any, model: Module | None) -> PlanScheduler:
        """Make the scheduler of an optimizer that exists, for eager mode."""
        return build_scheduler(plan, optimizer, model)

    def export_loop(self, model: Module, optimizer: Any, scheduler: Any) -> TrainingState:
        """Copy the state of a loop of the user's own; a graph stands in the place of the optimizer."""
        return own_loop.export_loop(model, optimizer, scheduler)

    def import_loop(self, state: TrainingState, model: Module, optimizer: Any, scheduler: Any) -> None:
        """Let a loop of the user's own go on from a state; a graph stands in the place of the optimizer."""
        own_loop.import_loop(state, model, optimizer, scheduler)


def build_eager_optimizer(plan: Plan, model: Module, step: int = 0) -> tuple[NativeOptimizer, PlanScheduler]:
    """Make an optimizer and a scheduler for eager mode, ready to make update ``step``.

    The rates are already multiplied by ``lr_scale``, because OneFlow 0.9's eager optimizers ignore it silently. The
    optimizer is OneFlow's own if that equals torch's, else a ``ComposedOptimizer``.
    """
    check_optimizers(plan)
    kinds = list_kinds(plan)
    if len(kinds) > 1 or not has_native_updates(plan):
        composed = build_composed_optimizer(plan, model)
        return composed, PlanScheduler(composed, plan, range(len(plan.groups)), step)
    rates = Float32Rates(plan).rates(step)
    param_groups = build_param_groups(plan, model)
    for index, options in param_groups:
        options.update(lr=rates[index], lr_scale=EagerScale(1.0))
    optimizer = build_optimizer(kinds[0], [options for _, options in param_groups])
    return optimizer, PlanScheduler(optimizer, plan, [index for index, _ in param_groups], step)
