"""A torch model in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.arrays import Float64, Slots
from layered_lr.backend.applied_rates import AppliedRates
from layered_lr.backend.base import Extras, Session, StepOutcome
from layered_lr.errors import SpecError, TrainingDiverged
from layered_lr.models.nn_modules import parameters_of, set_trainable, set_training
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import models, random_state
from layered_lr_torch.clipping import Gradients
from layered_lr_torch.dropout import Masks
from layered_lr_torch.grouped_steps import Unheard
from layered_lr_torch.memory import keep_freed_memory
from layered_lr_torch.moving_average import MovingAverage
from layered_lr_torch.optimizer import PlanScheduler, build_optimizer
from layered_lr_torch.slots import export_slots, import_slots, new_slots


class TorchSession(Session):
    """A torch model in training; ``forward`` is the model, or a compiled form of it."""

    def __init__(
        self,
        plan: Plan,
        model: torch.nn.Module,
        num_classes: int,
        device: torch.device,
        forward: Callable[[torch.Tensor], torch.Tensor],
        extras: Extras,
        step: int = 0,
    ) -> None:
        super().__init__(plan, num_classes, extras, step)
        self.device = device
        if device.type == "cpu":
            keep_freed_memory()
        self.model = model
        self.memory_format = models.memory_format(model)
        self.wants_channels_last = self.memory_format == torch.channels_last
        set_trainable(model, plan.frozen)
        self._train()
        self.forward = forward
        self.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self._objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self.gradients = Gradients(plan, model, self.extras.grad_norms)
        self.optimizer = build_optimizer(plan, model, self.gradients, step, is_ours=True)
        self._updated = [tensor for group in self.optimizer.param_groups for tensor in group["params"]]
        self.scheduler = PlanScheduler(self.optimizer, plan, step)
        self._unheard = Unheard(self.optimizer)
        self._applied = AppliedRates(model, [group["params"] for group in self.optimizer.param_groups])
        self._average = None if extras.ema_decay is None else MovingAverage(model, extras.ema_decay)
        self._masks = Masks(model, extras.seed)
        self._autocast_dtype = None if extras.autocast is None else getattr(torch, extras.autocast)

    def _answer(self, forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """The logits, in the model's dtype."""
        if self._autocast_dtype is None:
            return forward(images)
        with torch.autocast(self.device.type, self._autocast_dtype):
            answer = forward(images)
        return answer.to(self.dtype) if isinstance(answer, torch.Tensor) else answer

    def _train(self) -> None:
        """Bring the model into training mode, as the plan's phase has it."""
        phase = self.plan.phase or Phase()
        set_training(self.model, self.plan.frozen, phase.batch_norm, phase.dropout)

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> StepOutcome:
        for tensor in self._updated:  # as optimizer.zero_grad(), without its entry for a profiler
            tensor.grad = None
        given, wanted = self._on_device(images), self._labels(labels)
        if self._masks.any:
            self._masks.draw(self.step, len(images), parts, given)
        loss = self._backward(given, wanted, 0, 1) if parts == 1 else self._backward_parts(given, wanted, parts)
        if self._masks.any:
            self._masks.take_away()
        self._applied.record(self.optimizer.param_groups)
        self._step()
        self.scheduler.step()
        if self._average is not None:
            self._average.update()
        return StepOutcome(loss)

    def _step(self) -> None:
        try:
            self._unheard.step(self.optimizer)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise TrainingDiverged(
                f"a product of the optimizer's hyperparameters is more than {self.dtype} holds. Try smaller ones."
            ) from None

    def _backward_parts(self, images: torch.Tensor, labels: torch.Tensor, parts: int) -> torch.Tensor:
        batches = enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True))
        return sum(self._backward(*batch, part, parts) for part, batch in batches)  # type: ignore[return-value]

    def _backward(self, images: torch.Tensor, labels: torch.Tensor, part: int, parts: int) -> torch.Tensor:
        """Add a part's share of the gradient; returns its share of the loss."""
        if self._masks.any:
            self._masks.put(part)
        logits = self._answer(self.forward, images)
        self.check_logits(logits, len(images))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        if parts > 1:
            loss = loss / parts
        if loss.requires_grad:  # something trains
            loss.backward()
        return loss.detach()

    def _on_device(self, images: NDArray[Any]) -> torch.Tensor:
        given = torch.from_numpy(images).to(self.device, self.dtype)
        return given.contiguous(memory_format=self.memory_format if given.dim() == 4 else torch.contiguous_format)

    def _labels(self, labels: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(labels).to(self.device)

    def _losses(self, handles: Sequence[torch.Tensor]) -> Float64:
        self.gradients.fetch(len(handles))  # of steps that this waits for anyhow
        return np.array(torch.stack(list(handles)).tolist(), dtype=np.float64) if handles else np.empty(0)

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self.scheduler.observe(metrics, unit)

    def logits(self, images: NDArray[np.float32], ema: bool = False) -> NDArray[Any]:
        """See ``Session.logits``."""
        forward = self.model if not ema else self._averaged().forward
        self.model.eval()
        with torch.no_grad():
            answer = self._answer(forward, self._on_device(images)).cpu().numpy()
        self._train()
        return answer

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: read from the optimizer's param groups at each update."""
        return self._applied.table(self.plan, start - self.start, stop - self.start)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``."""
        return self.gradients.norms(start - self.start, stop - self.start)

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.ema_weights``."""
        return self._averaged().arrays()

    def _averaged(self) -> MovingAverage:
        if self._average is None:
            raise SpecError("there is no moving average: it needs ema_decay=..., such as 0.999.")
        return self._average

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)

    def _slots(self) -> Slots:
        return export_slots(self.optimizer, self._objects, self.plan.frozen)

    def _new_slots(self) -> Slots:
        return new_slots(self.optimizer, self._objects, self.plan.frozen)

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self.scheduler.live.state()

    def _random(self) -> Mapping[str, NDArray[Any]]:
        return random_state.states(self.device)

    def _import(self, state: TrainingState) -> None:
        models.load(self.model, state.weights)
        import_slots(self.optimizer, self._objects, state.slots, self.plan.frozen)
        self.scheduler.go_to(state.step, state.reactions)
        if self._average is not None:
            self._average.restore(state.ema, has_begun=state.step > 0)
        random_state.restore(state.random, self.device)
        self._applied.clear()
        self.gradients.clear()
