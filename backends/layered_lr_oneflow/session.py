"""What the sessions of both OneFlow backends share: arrays in and out, and what happens between updates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Arrays, Float64, Slots, Targets
from layered_lr.backend.class_targets import divide_targets
from layered_lr.backend.gradient_watch import GradientWatch, grad_mode_error
from layered_lr.backend.output_checks import check_logits
from layered_lr.backend.session import Extras, Session, StepOutcome
from layered_lr.data.share import WHOLE
from layered_lr.errors import SpecError
from layered_lr.losses import ClassLoss
from layered_lr.models.nn_modules import set_trainable, set_training
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow import models
from layered_lr_oneflow.dropout import DropoutMasks, find_random_modules
from layered_lr_oneflow.eager_tensors import sync
from layered_lr_oneflow.lookups import read_loss
from layered_lr_oneflow.losses import make_loss
from layered_lr_oneflow.moving_average import MovingAverage
from layered_lr_oneflow.norms import NormHistory
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.processes import OneFlowProcesses, OwnPart
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.slots import SlotConverter

Inputs: TypeAlias = tuple[Tensor, ...]
"""One part of a batch: images, labels, and a mask for each of the library's own dropouts that is in use."""


class OneFlowSession(Session):
    """A OneFlow model in training.

    Args:
        plan: Rates and groups, without phases.
        model: What is trained.
        num_classes: Labels are 0 to ``num_classes - 1``.
        device: OneFlow's name of the device that the model is on.
        extras: What the session does in addition to the updates.
        step: Updates that the run has made before.
        processes: That train the model together; None trains alone.
    """

    # More are no faster: MobileNetV2 took 160 ms an update at 2, 153 at 8 and at 50.
    steps_ahead: int = 8

    def __init__(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        device: str,
        extras: Extras,
        step: int = 0,
        processes: OneFlowProcesses | None = None,
    ) -> None:
        super().__init__(plan, num_classes, extras, step)
        self.device = device
        self._processes = processes
        self._own_part = OwnPart(WHOLE if processes is None else processes.share)
        if processes is not None:
            processes.take_from_first(list(model.state_dict().values()))
        self.model = model
        self.dtype = models.find_dtype(model)
        set_trainable(model, plan.frozen)
        if not flow.is_grad_enabled():
            raise grad_mode_error()
        self._follow_plan(plan)
        # No method of this session: a graph keeps it, and a forked child hangs if it collects a graph in a cycle.
        self._logits_check = partial(check_logits, num_classes=num_classes, dtypes=self.logits_dtypes)
        self._loss = make_loss(extras.loss)
        self._masks = DropoutMasks(model, extras.seed, share=self._own_part.share)
        self._norms = NormHistory(len(plan.groups), self.steps_ahead)
        self._average = None if extras.ema_decay is None else MovingAverage(model, extras.ema_decay)
        self._begin(plan, step)

    @abstractmethod
    def _begin(self, plan: Plan, step: int) -> None:
        """Make what updates by a plan, ready for an update; the last thing that is done when a session is made."""

    def _follow_plan(self, plan: Plan) -> None:
        """Take a plan, and bring the model into its training mode."""
        self.plan = plan
        self._slot_converter = SlotConverter(plan, self.model)
        self._watch = GradientWatch(self.model)
        self._set_training_mode()

    def _set_training_mode(self) -> None:
        """Bring the model into training mode, except the modules that the plan's phase holds still."""
        phase = self.plan.phase or Phase()
        set_training(self.model, self.plan.frozen, phase.batch_norm, phase.dropout)

    def _place_images(self, array: Array) -> Tensor:
        """Copy images, or masks, to a tensor on the model's device, in its dtype."""
        return flow.tensor(array, dtype=self.dtype, device=self.device)

    def _place_labels(self, array: Array) -> Tensor:
        """Copy labels, or what the loss makes of them, to a tensor; see ``losses.make_loss``.

        ``from_numpy`` would share memory with what OneFlow reads later, asynchronously.
        """
        if isinstance(self.extras.loss, ClassLoss) and (array.ndim == 2 or not self.extras.loss.is_plain):
            shares = self._divide_targets(self.extras.loss, array)
            return flow.tensor(shares, dtype=self.dtype, device=self.device)
        return flow.tensor(array, dtype=self.dtype if array.dtype.kind == "f" else flow.int64, device=self.device)

    def _divide_targets(self, loss: ClassLoss, labels: Targets) -> Float64:
        """What the loss adds up over images and classes, for this process's labels."""
        return divide_targets(loss, labels, self.num_classes)

    def _update(self, images: NDArray[np.float32], labels: Targets, parts: int) -> StepOutcome:
        batches = zip(np.split(images, parts), np.split(labels, parts), strict=True)
        whole = self._own_part.begin(len(images) // parts, self.whole) * parts
        masks = [np.split(mask, parts) for mask in self._masks.draw(self.step, whole, parts, images.shape[1:])]
        inputs = [
            (self._place_images(some), self._place_labels(theirs), *(self._place_images(mask[part]) for mask in masks))
            for part, (some, theirs) in enumerate(batches)
        ]
        losses, norms = self._make_update(inputs)
        if self._processes is not None:
            losses = self._unify(self._processes, losses)
        updated = self._list_updated()
        self._watch.note(updated)
        self._slot_converter.count_update(updated)
        if self.extras.grad_norms:
            self._norms.append(norms)
        if self._average is not None:
            self._average.update()
        return StepOutcome(losses)

    def _unify(self, processes: OneFlowProcesses, losses: Sequence[Tensor]) -> list[Tensor]:
        """Let all processes have the first one's buffers, such as statistics; returns the mean of their losses."""
        processes.take_from_first(list(self.model.buffers()))
        mean = processes.mean(flow.stack([loss.reshape(-1) for loss in losses]))
        return [mean[part] for part in range(len(losses))]

    @abstractmethod
    def _make_update(self, parts: Sequence[Inputs]) -> tuple[list[Tensor], Tensor | None]:
        """Make one update by the mean gradient of these parts.

        Returns:
            The loss of each part, and each group's gradient norm, shape (groups,): None if norms are not measured, or
            if there are no gradients.
        """

    @abstractmethod
    def _list_updated(self) -> Sequence[str]:
        """List the names of the parameters that the last update changed."""

    @abstractmethod
    def _read_slots(self) -> Slots:
        """Copy all slots that the optimizer holds, by torch's names."""

    @abstractmethod
    def _restore(self, state: TrainingState, slots: Slots) -> None:
        """Go on from these slots of every trainable parameter, and from the state's step and reactions."""

    def without_gradient(self) -> tuple[str, ...]:
        """Names of the parameters that are to be trained and have had no gradient so far."""
        return tuple(self._watch.without)

    def _slots(self) -> Slots:
        return self._slot_converter.export_slots(self._read_slots())

    def _new_slots(self) -> Slots:
        return self._slot_converter.new_slots()

    def random_modules(self) -> tuple[str, ...]:
        """Names of the modules whose random numbers cannot be restored: a resumed run draws other ones."""
        return find_random_modules(self.model)

    def _unsaved(self) -> Arrays:
        return models.copy_unsaved(self.model)

    def _unsaved_averages(self) -> Arrays:
        averages = self._get_average().get_tensors()
        return {name: averages[name].numpy().copy() for name in self._unsaved() if name in averages}

    def _random(self) -> Arrays:
        return {}

    def _import(self, state: TrainingState) -> None:
        sync()
        models.load_state(self.model, state.weights)
        models.load_unsaved(self.model, state.unsaved)
        self._restore(state, self._slot_converter.import_slots(state.slots))
        self._norms = NormHistory(len(self.plan.groups), self.steps_ahead)
        if self._average is not None:
            self._average.load(state.ema if state.step else {})

    def _losses(self, handles: Sequence[list[Tensor]]) -> Float64:
        return np.array([np.mean([read_loss(loss.numpy()) for loss in parts]) for parts in handles], dtype=np.float64)

    def logits(self, images: NDArray[np.float32], ema: bool = False, shares: bool = False) -> Array:
        """Compute the model's logits in evaluation mode, shape (N, classes).

        It runs in eager mode, also if training runs in a graph: both use the same weights.
        """
        processes = self._processes if shares else None
        rows = None if processes is None else processes.share.run_of(len(images))
        if rows is not None:
            images = images[rows]
        sync()
        self.model.eval()
        try:
            with self._get_average().use_averages() if ema else nullcontext(), flow.no_grad():
                logits = self.model(self._place_images(images))
                self.check_logits(logits, len(images))
                if rows is not None and processes is not None:
                    logits = processes.stack(logits)
                numbers: Array = logits.numpy().copy()
        finally:
            self._set_training_mode()
        return numbers

    def grad_norms(self, start: int, stop: int) -> Float64:
        """Each group's gradient norm at updates ``start`` to ``stop - 1``, before any clipping.

        Raises:
            SpecError: The session does not measure norms.
        """
        if not self.extras.grad_norms:
            raise SpecError("grad_norms: not measured; open the session with Extras(grad_norms=True).")
        return self._norms.table(*self._count_from_start(start, stop))

    def _count_from_start(self, start: int, stop: int) -> tuple[int, int]:
        """Turn updates counted from the start of the run into updates counted from the start of this session."""
        return max(start - self.start, 0), max(stop - self.start, 0)

    def weights(self) -> dict[str, Array]:
        """Copy the model's parameters and buffers."""
        return models.copy_state(self.model)

    def ema_weights(self) -> dict[str, Array]:
        """Copy the moving average of the weights; tensors that are not floating are copied from the model."""
        averages = self._get_average().get_tensors()
        return {
            name: averages[name].numpy().copy() if name in averages else array for name, array in self.weights().items()
        }

    def _get_average(self) -> MovingAverage:
        if self._average is None:
            raise SpecError("there is no moving average: give ema_decay=..., such as 0.999.")
        return self._average
