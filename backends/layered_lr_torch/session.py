"""The session of both torch backends: a torch model that trains by a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.arrays import Array, Arrays, Float64, Slots, Targets, Weights
from layered_lr.backend.applied_rates import AppliedRates
from layered_lr.backend.gradient_watch import GradientWatch, grad_mode_error, no_gradient_error
from layered_lr.backend.session import Extras, Session, StepOutcome
from layered_lr.data.share import WHOLE
from layered_lr.errors import SpecError, TrainingDiverged
from layered_lr.models.nn_modules import parameters_of, set_trainable, set_training
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Metrics
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import models, random_state
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.dropout import DropoutMasks
from layered_lr_torch.grouped_steps import HooklessStep
from layered_lr_torch.loss_scaling import LossScaler
from layered_lr_torch.losses import make_loss
from layered_lr_torch.memory import keep_freed_memory
from layered_lr_torch.moving_average import MovingAverage
from layered_lr_torch.norms import NormHistory
from layered_lr_torch.optimizer import build_optimizer
from layered_lr_torch.own_part import OwnPart
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.processes import Replica, TorchProcesses
from layered_lr_torch.sharded_model import Shards, uncalled_error
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.shared_draws import SharedDraws
from layered_lr_torch.shared_norms import share_batch_norms
from layered_lr_torch.slots import export_slots, import_slots, new_slots
from layered_lr_torch.torch_types import Forward, Module, Parameters, Tensor


class TorchSession(Session):
    """A torch model in training.

    Args:
        plan: Rates and groups, without phases.
        model: What is trained.
        num_classes: Labels are 0 to ``num_classes - 1``.
        device: Where the model is.
        forward: The model's forward pass in training: the model itself, or a compiled form of it.
        extras: What the session does in addition to the updates.
        step: Updates that the run has made before.
        processes: That train the model together; None trains alone.
    """

    logits_dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")

    def __init__(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        device: torch.device,
        forward: Forward,
        extras: Extras,
        step: int = 0,
        processes: TorchProcesses | None = None,
    ) -> None:
        super().__init__(plan, num_classes, extras, step)
        self.device = device
        if device.type == "cpu":
            keep_freed_memory()
        self.model = model
        self.memory_format = models.find_memory_format(model)
        self.wants_channels_last = self.memory_format == torch.channels_last
        set_trainable(model, plan.frozen)
        self._set_training_mode()
        if not torch.is_grad_enabled():
            raise grad_mode_error()
        self._watch = GradientWatch(model)
        self.forward = forward
        self.dtype = models.find_dtype(model)
        self._widest = models.find_widest_dtype(model)
        self._parameters: Parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._norms = NormHistory(plan, model)
        self.clipper = GradientClipper(plan, model, self._norms if self.extras.grad_norms else None)
        self.optimizer = build_optimizer(plan, model, self.clipper, step, is_internal=True)
        self._updated = [tensor for group in self.optimizer.param_groups for tensor in group["params"]]
        self.scheduler = PlanScheduler(self.optimizer, plan, step)
        self._hookless_step = HooklessStep(self.optimizer)
        self._applied_rates = AppliedRates(
            model, [group["params"] for group in self.optimizer.param_groups], self.scheduler.owners
        )
        self._masks: DropoutMasks | SharedDraws
        if getattr(model, "layered_lr_shares_masks", False):
            self._masks = SharedDraws(extras.seed)
            self.forward = self._masks.wrap(forward)
        else:
            self._masks = DropoutMasks(model, extras.seed, WHOLE if processes is None else processes.share)
        self._processes, self._replica = processes, None
        self._own_part: OwnPart | None = None
        self._weight = 1.0  # of the loss of this process's images
        if processes is not None:
            self._replica = self._share_with(processes)
        # after the copies of the model have become one
        self._average = None if extras.ema_decay is None else MovingAverage(model, extras.ema_decay)
        self._autocast_dtype = None if extras.autocast is None else getattr(torch, extras.autocast)
        self._loss = make_loss(extras.loss, num_classes, device, self._widest)
        is_scaled = extras.autocast == "float16"
        self._scaler = LossScaler(device, extras.scaling, self.optimizer) if is_scaled else None

    def _share_with(self, processes: TorchProcesses) -> Replica | Shards:
        """Let the forward pass be that of one of several processes."""
        if self.extras.sync_batch_norm:
            share_batch_norms(self.model)
        replica: Replica | Shards
        if any(map(is_sharded, self._parameters.values())):
            replica = Shards(self.model, processes)
        else:
            shares_masks = isinstance(self._masks, DropoutMasks) and self._masks.has_work
            replica = Replica(self.model, processes, always_uses_all=shares_masks)
        self._own_part = OwnPart(processes, self.device)
        self.forward = self._own_part.draws.wrap(replica.forward)
        return replica

    def _compute_logits(self, forward: Forward, images: Tensor) -> Tensor:
        """Run the forward pass; under autocast the logits become what the widest floating parameter is."""
        try:
            return self._answer(forward, images)
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" in str(error):
                raise uncalled_error() from None
            raise

    def _answer(self, forward: Forward, images: Tensor) -> Tensor:
        if self._autocast_dtype is None:
            return forward(images)
        with torch.autocast(self.device.type, self._autocast_dtype):
            logits = forward(images)
        return logits.to(self._widest) if isinstance(logits, torch.Tensor) else logits

    def _set_training_mode(self) -> None:
        """Bring the model into training mode, except the modules that the plan's phase holds still."""
        phase = self.plan.phase or Phase()
        set_training(self.model, self.plan.frozen, phase.batch_norm, phase.dropout)

    def _update(self, images: NDArray[np.float32], labels: Targets, parts: int) -> StepOutcome:
        for tensor in self._updated:  # as optimizer.zero_grad(), without its entry for a profiler
            tensor.grad = None
        given, wanted = self._place_images(images), self._place_labels(labels)
        whole = len(images)
        if self._own_part is not None:
            whole, self._weight = self._own_part.begin(len(images), self.whole)
        if self._masks.has_work:
            self._masks.draw(self.step, whole, parts, given)
        loss = self._backward(given, wanted, 0, 1) if parts == 1 else self._backward_parts(given, wanted, parts)
        if self._masks.has_work:
            self._masks.remove()
        if self._replica is not None:
            self._replica.end_backward()
        if self._own_part is not None:
            self._own_part.end()
        self._watch.look()
        if self._scaler is not None and (why := self._scaler.step()):
            return StepOutcome(loss, False, why, self._scaler.state()["scale"])
        self._applied_rates.record(self.optimizer.param_groups)
        if self._scaler is None:
            self._step()
        self.scheduler.step()
        if self._replica is not None and self._processes is not None:
            self._replica.unify_buffers()
            loss = self._processes.mean(loss)
        if self._average is not None:
            self._average.update()
        return StepOutcome(loss)

    def _step(self) -> None:
        """Let the optimizer make the update."""
        try:
            self._hookless_step.step(self.optimizer)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise TrainingDiverged(
                f"a product of the optimizer's hyperparameters is more than {self.dtype} holds. Try smaller ones."
            ) from None

    def _backward_parts(self, images: Tensor, labels: Tensor, parts: int) -> Tensor:
        """Add up the gradient of all parts; returns the batch's loss."""
        batches = zip(images.chunk(parts), labels.chunk(parts), strict=True)
        losses = []
        for part, batch in enumerate(batches):
            with nullcontext() if self._replica is None else self._replica.part(part == parts - 1):
                losses.append(self._backward(*batch, part, parts))
        return sum(losses[1:], losses[0])

    def _backward(self, images: Tensor, labels: Tensor, part: int, parts: int) -> Tensor:
        """Add one part's share of the gradient; returns the part's share of the loss."""
        if self._masks.has_work:
            self._masks.insert(part)
        logits = self._compute_logits(self.forward, images)
        self.check_logits(logits, len(images))
        loss = self._loss(logits, labels)
        if parts > 1:
            loss = loss / parts
        if self._weight != 1:
            loss = loss * self._weight
        if loss.requires_grad:
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        elif any(tensor.requires_grad for tensor in self._updated):  # else nothing trains in this phase
            raise no_gradient_error()
        return loss.detach()

    def _place_images(self, images: Array) -> Tensor:
        """Images as a tensor on the model's device, in its memory layout and its first floating parameter's dtype."""
        given = torch.from_numpy(images).to(self.device, self.dtype)
        return given.contiguous(memory_format=self.memory_format if given.dim() == 4 else torch.contiguous_format)

    def _place_labels(self, labels: Targets) -> Tensor:
        """Labels as a tensor on the model's device; shares of classes, and values, in the dtype of the logits."""
        return torch.from_numpy(labels).to(self.device, self._widest if labels.dtype.kind == "f" else None)

    def _losses(self, handles: Sequence[Tensor]) -> Float64:
        self._norms.fetch(len(handles))  # of the updates that this waits for anyway
        return np.array(torch.stack(list(handles)).tolist(), dtype=np.float64) if handles else np.empty(0)

    def observe(self, metrics: Metrics, unit: str) -> None:
        """Let reactive schedules that look at each step, or at each epoch, see its metrics."""
        self.scheduler.observe(metrics, unit)

    def logits(self, images: NDArray[np.float32], ema: bool = False, shares: bool = False) -> Array:
        """Compute the model's logits in evaluation mode, shape (N, classes)."""
        processes = self._processes if shares else None
        rows = None if processes is None else processes.share.run_of(len(images))
        if rows is not None:
            images = images[rows]
        self.model.eval()
        try:
            with self._get_average().use_averages() if ema else nullcontext(), torch.no_grad():
                logits = self._compute_logits(self.model, self._place_images(images))
        finally:
            self._set_training_mode()
        self.check_logits(logits, len(images))
        if rows is not None and processes is not None:
            logits = processes.stack(logits)
        return models.to_array(logits.float() if logits.dtype == torch.bfloat16 else logits)

    def rates(self, start: int, stop: int) -> Float64:
        """Rates of updates ``start`` to ``stop - 1``, read from the optimizer's param groups at each update."""
        return self._applied_rates.table(self.plan, start - self.start, stop - self.start)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """Each group's gradient norm at updates ``start`` to ``stop - 1``, before any clipping."""
        return self._norms.table(start - self.start, stop - self.start)

    def ema_weights(self) -> dict[str, Array]:
        """Copy the moving average of the weights."""
        return self._get_average().copy_averages()

    def _get_average(self) -> MovingAverage:
        if self._average is None:
            raise SpecError("there is no moving average: give ema_decay=..., such as 0.999.")
        return self._average

    def weights(self) -> dict[str, Array]:
        """Copy the model's parameters and buffers."""
        return models.copy_state(self.model)

    def check_savable(self) -> None:
        """Refuse a model whose state cannot be saved whole."""
        models.check_savable(self.model)

    def without_gradient(self) -> tuple[str, ...]:
        """Names of the parameters that are to be trained and have had no gradient so far."""
        return tuple(self._watch.without)

    def _state_weights(self) -> Weights:
        return models.copy_state(self.model, models.to_state_array)

    def _state_averages(self) -> Weights:
        return self._get_average().copy_averages(models.to_state_array)

    def _slots(self) -> Slots:
        return export_slots(self.optimizer, self._parameters, self.plan.frozen, models.to_state_array)

    def _new_slots(self) -> Slots:
        return new_slots(self.optimizer, self._parameters, self.plan.frozen)

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self.scheduler.live.state()

    def _unsaved(self) -> Arrays:
        return models.copy_unsaved(self.model)

    def _unsaved_averages(self) -> Arrays:
        return self._get_average().copy_unsaved()

    def _scaler_state(self) -> Mapping[str, float]:
        return {} if self._scaler is None else self._scaler.state()

    def _random(self) -> Arrays:
        return random_state.read_states(self.device)

    def _import(self, state: TrainingState) -> None:
        random_state.restore_states(state.random, self.device)  # the first one: it may refuse
        models.load_state(self.model, state.weights)
        models.load_unsaved(self.model, state.unsaved)
        import_slots(self.optimizer, self._parameters, state.slots, self.plan.frozen)
        self.scheduler.go_to(state.step, state.reactions)
        if self._scaler is not None:
            self._scaler.load(state.scaler)
        if self._average is not None:
            self._average.load(state.ema, has_begun=state.step > 0)
        self._applied_rates.clear()
        self._norms.clear()
