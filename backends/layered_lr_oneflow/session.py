"""What sessions of OneFlow have in common: how arrays go in and come out, and what goes beside the updates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64, Slots
from layered_lr.backend.base import Extras, Session, StepOutcome
from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import set_trainable, set_training
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow import models
from layered_lr_oneflow.dropout import Masks, drawing_modules
from layered_lr_oneflow.moving_average import MovingAverage
from layered_lr_oneflow.norms import NormHistory
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.slot_access import Held
from layered_lr_oneflow.slots import SlotBook

Inputs: TypeAlias = tuple[Any, ...]  # images, labels, and a mask for each dropout of the library's own that is in use


class OneFlowSession(Session):
    """A OneFlow model in training."""

    # More are no faster: MobileNetV2 took 160 ms an update at 2, 153 at 8 and at 50.
    steps_ahead: int = 8

    def __init__(self, plan: Plan, model: Any, num_classes: int, device: str, extras: Extras, step: int = 0) -> None:
        super().__init__(plan, num_classes, extras, step)
        self.device = device
        self.model = model
        self.dtype = models.dtype(model)
        set_trainable(model, plan.frozen)
        self._take_plan(plan)
        self._masks = Masks(model, extras.seed)
        self._norms = NormHistory(len(plan.groups), self.steps_ahead)
        self._average = None if extras.ema_decay is None else MovingAverage(model, extras.ema_decay)

    def _take_plan(self, plan: Plan) -> None:
        """Bring the model to where the plan has it."""
        self.plan = plan
        self._book = SlotBook(plan, self.model)
        self._set_training()

    def _set_training(self) -> None:
        phase = self.plan.phase or Phase()
        set_training(self.model, self.plan.frozen, phase.batch_norm, phase.dropout)

    def images(self, array: NDArray[Any]) -> Any:
        """A copy of an array in the model's dtype."""
        return flow.tensor(array, dtype=self.dtype, device=self.device)

    def labels(self, array: NDArray[Any]) -> Any:
        """A copy of an array: ``from_numpy`` would share memory with what OneFlow reads later, asynchronously."""
        return flow.tensor(array, device=self.device)

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> StepOutcome:
        batches = zip(np.split(images, parts), np.split(labels, parts), strict=True)
        masks = [np.split(mask, parts) for mask in self._masks.draw(self.step, len(images))]
        inputs = [
            (self.images(some), self.labels(theirs), *(self.images(mask[part]) for mask in masks))
            for part, (some, theirs) in enumerate(batches)
        ]
        losses, norms = self._train(inputs)
        self._book.count(self._updated())
        if self.extras.grad_norms:
            self._norms.append(norms)
        if self._average is not None:
            self._average.update()
        return StepOutcome(losses)

    @abstractmethod
    def _train(self, parts: Sequence[Inputs]) -> tuple[list[Any], Any]:
        """Make one update by the mean gradient of these parts.

        Returns:
            The loss of each part, and each group's gradient norm, shape (groups,): None where it is not asked for, or
            where there are no gradients.
        """

    @abstractmethod
    def _updated(self) -> Sequence[str]:
        """Names of the parameters that the last update was of."""

    @abstractmethod
    def _held(self) -> Held:
        """Copies of all slots that the optimizer holds, by torch's names."""

    @abstractmethod
    def _seek(self, state: TrainingState, slots: Held) -> None:
        """Go on from these slots, every trainable parameter's, and from the state's step and reactions."""

    def _slots(self) -> Slots:
        return self._book.outward(self._held())

    def _new_slots(self) -> Slots:
        return self._book.new()

    def random_modules(self) -> tuple[str, ...]:
        """Names of the modules that draw random numbers which cannot be restored: other ones after a resume."""
        return drawing_modules(self.model)

    def _random(self) -> Mapping[str, NDArray[Any]]:
        return {}

    def _import(self, state: TrainingState) -> None:
        models.sync()
        models.load(self.model, state.weights)
        self._seek(state, self._book.inward(state.slots))
        self._norms = NormHistory(len(self.plan.groups), self.steps_ahead)
        if self._average is not None:
            self._average.load(state.ema if state.step else {})

    def _losses(self, handles: Sequence[list[Any]]) -> Float64:
        return np.array([np.mean([float(loss.numpy()) for loss in parts]) for parts in handles], dtype=np.float64)

    def logits(self, images: NDArray[np.float32], ema: bool = False) -> NDArray[Any]:
        """See ``Session.logits``; in eager mode also where training runs in a graph, which shares the weights."""
        models.sync()
        self.model.eval()
        try:
            with self._averages().in_place() if ema else nullcontext(), flow.no_grad():
                answer = self.model(self.images(images)).numpy().copy()
        finally:
            self._set_training()
        return answer  # type: ignore[no-any-return]

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``."""
        if not self.extras.grad_norms:
            raise SpecError("grad_norms: not measured; open the session with Extras(grad_norms=True).")
        return self._norms.table(*self._since_start(start, stop))

    def _since_start(self, start: int, stop: int) -> tuple[int, int]:
        """Updates of the run as updates of this session."""
        return max(start - self.start, 0), max(stop - self.start, 0)

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.ema_weights``."""
        averages = self._averages().tensors()
        return {
            name: averages[name].numpy().copy() if name in averages else array for name, array in self.weights().items()
        }

    def _averages(self) -> MovingAverage:
        if self._average is None:
            raise SpecError("there is no moving average: open the session with Extras(ema_decay=...).")
        return self._average
