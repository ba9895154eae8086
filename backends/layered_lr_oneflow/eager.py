"""Backend ``oneflow-eager``: OneFlow runs each operation by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from layered_lr.arrays import Float64, Slots
from layered_lr.backend.applied_rates import AppliedRates
from layered_lr.backend.gradient_watch import no_gradient_error
from layered_lr.backend.session import NO_EXTRAS, Extras
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Metrics
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.backend import OneFlowBackend, build_eager_optimizer
from layered_lr_oneflow.clipping import GradientClipper
from layered_lr_oneflow.dropout import find_random_modules, find_seedable_dropouts, seed_dropouts
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.operators.arithmetic import detach
from layered_lr_oneflow.processes import OneFlowProcesses, draw_for_all
from layered_lr_oneflow.session import Inputs, OneFlowSession
from layered_lr_oneflow.slot_access import EagerSlots


class EagerUpdates(OneFlowSession):
    """A session whose optimizer is eager; a subclass computes the gradients, in eager mode or in a graph."""

    def _begin(self, plan: Plan, step: int) -> None:
        """Make a new optimizer for a plan."""
        self.optimizer, self.scheduler = build_eager_optimizer(plan, self.model, step)
        self._clipper = GradientClipper(plan, self.model, measures=self.extras.grad_norms)
        self._applied_rates = self._make_applied_rates()
        self._eager_slots = EagerSlots(self.optimizer, self.model)

    def _make_applied_rates(self) -> AppliedRates:
        return AppliedRates(
            self.model, [group.parameters for group in self.optimizer.param_groups], self.scheduler.owners
        )

    def _list_updated(self) -> Sequence[str]:
        return self._slot_converter.find_with_gradients()

    def _read_slots(self) -> Slots:
        return self._eager_slots.read()

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self.scheduler.live.state()

    def _restore(self, state: TrainingState, slots: Slots) -> None:
        self._eager_slots.write(slots)
        self.scheduler.go_to(state.step, state.reactions)
        self._applied_rates = self._make_applied_rates()

    def _make_update(self, parts: Sequence[Inputs]) -> tuple[list[Tensor], Tensor | None]:
        # Zeros instead of None would let momentum and decay move parameters that have no gradient.
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(parts)
        if self._processes is not None:
            self._average_gradients(self._processes)
        self._applied_rates.record(self.optimizer.param_groups)
        norms = self._clipper.clip()
        self.optimizer.step()
        self.scheduler.step()
        return losses, norms

    def _average_gradients(self, processes: OneFlowProcesses) -> None:
        """Let the gradients be the mean of all processes'."""
        processes.average_gradients([each for each in self.model.parameters() if each.requires_grad])

    @abstractmethod
    def _backward(self, parts: Sequence[Inputs]) -> list[Tensor]:
        """Leave the mean gradient of all parts in each ``p.grad``, or None; returns each part's loss."""

    def observe(self, metrics: Metrics, unit: str) -> None:
        """Let reactive schedules that look at each step, or at each epoch, see its metrics."""
        self.scheduler.observe(metrics, unit)

    def rates(self, start: int, stop: int) -> Float64:
        """Rates of updates ``start`` to ``stop - 1``, read from the optimizer's param groups at each update."""
        return self._applied_rates.table(self.plan, *self._count_from_start(start, stop))


@final
class EagerSession(EagerUpdates):
    """A OneFlow model in training, op by op."""

    def _begin(self, plan: Plan, step: int) -> None:
        super()._begin(plan, step)
        self._seeded = find_seedable_dropouts(self.model)
        if self._processes is not None:
            draw_for_all(list(self._seeded.values()), self._own_part)

    def random_modules(self) -> tuple[str, ...]:
        """Names of the modules whose random numbers cannot be restored; ``nn.Dropout`` is seeded before each update."""
        return tuple(name for name in find_random_modules(self.model) if name not in self._seeded)

    def _backward(self, parts: Sequence[Inputs]) -> list[Tensor]:
        seed_dropouts(self._seeded.values(), self.extras.seed, self.step, self.device)
        losses = []
        for images, labels, *masks in parts:
            self._masks.insert(masks)
            logits = self.model(images)
            self.check_logits(logits, len(images))
            loss = self._loss(logits, labels)
            if self._own_part.part.weight != 1:
                loss = loss * self._own_part.part.weight
            if loss.requires_grad:
                (loss / len(parts) if len(parts) > 1 else loss).backward()
            elif self._watch.watches_any:  # else nothing trains in this phase
                raise no_gradient_error()
            losses.append(detach(loss))
        self._masks.remove()
        return losses


@final
class OneFlowEager(OneFlowBackend):
    """OneFlow, op by op."""

    name: ClassVar[str] = "oneflow-eager"

    def open(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> EagerSession:
        """Put the model under the plan's optimizer, ready to make update ``step``."""
        self.check_together(extras)
        return EagerSession(plan, model, num_classes, self.device, extras, step, self.together)
