"""Backend ``oneflow-eager``: OneFlow, op by op."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

from layered_lr.arrays import Float64
from layered_lr.backend.applied_rates import AppliedRates
from layered_lr.backend.base import NO_EXTRAS, Extras
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.backend import OneFlowBackend, build_eager
from layered_lr_oneflow.clipping import Clipping
from layered_lr_oneflow.dropout import drawing_modules, seed_dropouts, seedable_dropouts
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.session import Inputs, OneFlowSession
from layered_lr_oneflow.slot_access import EagerSlots, Held


class EagerUpdates(OneFlowSession):
    """A session whose optimizer is an eager one, wherever the gradients come from."""

    def __init__(self, plan: Plan, model: Any, num_classes: int, device: str, extras: Extras, step: int = 0) -> None:
        super().__init__(plan, model, num_classes, device, extras, step)
        self._begin(plan, step)

    def _begin(self, plan: Plan, step: int) -> None:
        """Set up a new optimizer."""
        self.optimizer, self.scheduler = build_eager(plan, self.model, step)
        self._clipping = Clipping(plan, self.model, measured=self.extras.grad_norms)
        self._applied = self._new_applied()
        self._eager_slots = EagerSlots(self.optimizer, self.model)

    def _new_applied(self) -> AppliedRates:
        return AppliedRates(self.model, [group.parameters for group in self.optimizer.param_groups])

    def _updated(self) -> Sequence[str]:
        return self._book.with_gradients()

    def _held(self) -> Held:
        return self._eager_slots.read()

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self.scheduler.live.state()

    def _seek(self, state: TrainingState, slots: Held) -> None:
        self._eager_slots.write(slots)
        self.scheduler.load_state_dict({"last_step": state.step, "reactions": state.reactions})
        self._applied = self._new_applied()

    def _train(self, parts: Sequence[Inputs]) -> tuple[list[Any], Any]:
        # Zeros instead of None would let momentum and decay move parameters that have no gradient.
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(parts)
        self._applied.record(self.optimizer.param_groups)
        norms = self._clipping.apply()
        self.optimizer.step()
        self.scheduler.step()
        return losses, norms

    @abstractmethod
    def _backward(self, parts: Sequence[Inputs]) -> list[Any]:
        """Leave the mean gradient of all parts in ``p.grad``, None where there is none; returns each part's loss."""

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self.scheduler.observe(metrics, unit)

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: read from the optimizer's param groups at each update."""
        return self._applied.table(self.plan, *self._since_start(start, stop))


@final
class EagerSession(EagerUpdates):
    """A OneFlow model in training, op by op."""

    def __init__(self, plan: Plan, model: Any, num_classes: int, device: str, extras: Extras, step: int = 0) -> None:
        super().__init__(plan, model, num_classes, device, extras, step)
        self._seeded = seedable_dropouts(model)

    def random_modules(self) -> tuple[str, ...]:
        """See ``OneFlowSession.random_modules``: all but ``nn.Dropout``, which is seeded before each update."""
        return tuple(name for name in drawing_modules(self.model) if name not in self._seeded)

    def _backward(self, parts: Sequence[Inputs]) -> list[Any]:
        seed_dropouts(self._seeded.values(), self.extras.seed, self.step, self.device)
        losses = []
        for images, labels, *masks in parts:
            self._masks.hand_in(masks)
            logits = self.model(images)
            self.check_logits(logits, len(images))
            loss = flow.nn.functional.cross_entropy(logits, labels)
            (loss / len(parts) if len(parts) > 1 else loss).backward()
            losses.append(loss.detach())
        self._masks.take_back()
        return losses


@final
class OneFlowEager(OneFlowBackend):
    """OneFlow, op by op."""

    name: ClassVar[str] = "oneflow-eager"

    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> EagerSession:
        """See ``Backend.open``."""
        return EagerSession(plan, model, num_classes, self.device, extras, step)
