"""Phases in a loop of the user's own: one optimizer, and a scheduler that also freezes and changes what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import find_still_modules, parameters_of, set_trainable, trainable_parameters
from layered_lr.optimizers.handover import complete_slots
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, carry_reactions
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_torch.clipping import Gradients
from layered_lr_torch.optimizer import PlanScheduler, build_optimizer, param_groups
from layered_lr_torch.slots import export_slots, import_slots, new_slots


def compile_timeline(plan: Plan, model: torch.nn.Module) -> tuple[torch.optim.Optimizer, PlanScheduler]:
    """The optimizer of a plan with phases, and a scheduler that goes from one to the next.

    Raises:
        Unsupported: The kind of optimizer changes.
    """
    first = plan.phase_plans[0]
    for number, there in enumerate(plan.phase_plans, start=1):
        old, new = type(first.spec.optimizer).__name__, type(there.spec.optimizer).__name__
        if old != new:
            raise Unsupported(
                f"phase {number} switches from {old} to {new}, and compile makes one optimizer. Compile the phases "
                "before and after the switch one by one, with specs of their own, and take the weights along by the "
                "model; or use ll.run, which switches."
            )
    gradients = Gradients(first, model)
    optimizer = build_optimizer(first, model, gradients)
    clips = any(there.spec.clip_grad_norm or there.spec.clip_grad_value for there in plan.phase_plans)
    if clips and not gradients.has_work:
        gradients.attach(optimizer)
    return optimizer, TimelineScheduler(optimizer, plan, model, gradients)


class TimelineScheduler(PlanScheduler):
    """A ``PlanScheduler`` whose ``step()`` also begins the next phase, where the update to come is its first.

    It sets ``requires_grad``, param groups (decay, momentum, betas, ...) and clipping; what the optimizer keeps stays.
    Batch normalisations and dropouts that a phase holds still do so whenever the model is called, also after
    ``model.train()``. Gradients of parameters that freeze are dropped.

    Args:
        optimizer: Of the first phase.
        plan: With phases.
        model: Whose parameters it trains.
        gradients: What clips before each update.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: Plan, model: torch.nn.Module, gradients: Gradients
    ) -> None:
        self.plan, self.model = plan, model
        self._gradients = gradients
        self._trainable = trainable_parameters(model)
        self._objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._place = 0
        self._remembered: dict[str, Mapping[str, float]] = {}
        self._held: list[tuple[Any, Any]] = []
        super().__init__(optimizer, plan.phase_plans[0])
        self._freeze()

    def step(self, epoch: int | None = None, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric; see ``PlanScheduler.step``."""
        if metrics is None:
            self._reach(self.last_epoch + 1 if epoch is None else epoch)
        super().step(epoch, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in torch's names, and what reactive schedules of all phases have seen."""
        reactions = {**self._remembered, **self.live.state()}
        return super().state_dict() | ({"reactions": reactions} if reactions else {})

    def check_reactions(self, state: TrainingState) -> None:
        """Refuse a state of groups that never react; see ``TrainingState.check_reactions``."""
        anywhere = {group.name for there in self.plan.phase_plans for group in there.groups if group.is_reactive}
        state.check_reactions(anywhere & set(state.reactions))

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """See ``PlanScheduler.reactions``: of all phases."""
        return {**self._remembered, **self.live.state()}

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """See ``PlanScheduler.go_to``."""
        self._remembered = dict(reactions)
        self._place = self.plan.phase_index(step)
        here = carry_reactions(self.plan, self._place, {})
        self._enter(step, {name: dict(reactions.get(name, new)) for name, new in here.items()})
        super().go_to(step, self.live.state())

    def _reach(self, step: int) -> None:
        while self._place < self.plan.phase_index(step):
            self._place += 1
            self._remembered |= self.live.state()
            self._enter(step, carry_reactions(self.plan, self._place, self._remembered))

    def _enter(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        there = self.plan.phases[self._place].plan
        self.live = LiveRates(there)
        self.live.restore(reactions)
        self._groups = [index for index, group in enumerate(there.groups) for _ in group.parts]
        self._freeze()
        self._gradients.follow(there)
        self._regroup(param_groups(there, self.model, step))
        slots = export_slots(self.optimizer, self._objects)
        kept = complete_slots(slots, new_slots(self.optimizer, self._objects, there.frozen))
        if any(slots[name].keys() != kept[name].keys() for name in kept):
            import_slots(self.optimizer, self._objects, {**slots, **kept})

    def _freeze(self) -> None:
        there = self.plan.phases[self._place].plan
        phase = there.phase or Phase()
        set_trainable(self.model, there.frozen, self._trainable)
        for module, hook in self._held:
            hook.remove()
            module.train(self.model.training)
        held = find_still_modules(self.model, there.frozen, phase.batch_norm, phase.dropout)
        self._held = [(module, module.register_forward_pre_hook(_still)) for module in held]

    def _regroup(self, groups: list[dict[str, Any]]) -> None:
        """Give the optimizer's param groups other values; other members where other parameters decay."""
        own = self.optimizer.param_groups
        if [list(map(id, group["params"])) for group in own] == [list(map(id, group["params"])) for group in groups]:
            for mine, group in zip(own, groups, strict=True):
                mine.update(group)
        else:
            defaults = self.optimizer.defaults
            own[:] = [{**defaults, **group, "initial_lr": group["lr"]} for group in groups]


def _still(module: Any, _: Any) -> None:
    module.eval()
