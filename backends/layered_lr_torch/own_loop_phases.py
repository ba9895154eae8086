"""Phases in a loop of the user's own: one optimizer, and a scheduler that also freezes and changes hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import find_still_modules, parameters_of, set_trainable, trainable_parameters
from layered_lr.optimizers.handover import complete_slots
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, carry_reactions, check_step_call
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.optimizer import PlanScheduler, build_optimizer, build_param_groups
from layered_lr_torch.slots import begin_sums, export_slots, import_slots, new_slots
from layered_lr_torch.torch_types import Module, Parameters, ParamGroup


def compile_phases(plan: Plan, model: Module) -> tuple[torch.optim.Optimizer, PlanScheduler]:
    """Make the one optimizer of a plan with phases, and a scheduler that goes from phase to phase.

    Raises:
        Unsupported: A phase switches to another kind of optimizer.
    """
    first = plan.phase_plans[0]
    for number, phase_plan in enumerate(plan.phase_plans, start=1):
        old, new = type(first.spec.optimizer).__name__, type(phase_plan.spec.optimizer).__name__
        if old != new:
            raise Unsupported(
                f"phase {number} switches from {old} to {new}, and compile makes one optimizer. Compile the phases "
                "before and after the switch one by one, with specs of their own, and take the weights along by the "
                "model; or use ll.run, which switches."
            )
    clipper = GradientClipper(first, model)
    optimizer = build_optimizer(first, model, clipper)
    clips = any(there.spec.clip_grad_norm or there.spec.clip_grad_value for there in plan.phase_plans)
    if clips and not clipper.has_work:
        clipper.attach(optimizer)
    return optimizer, PhaseScheduler(optimizer, plan, model, clipper, clips)


class PhaseScheduler(PlanScheduler):
    """A ``PlanScheduler`` whose ``step()`` also begins the next phase, when the next update is the phase's first.

    It sets ``requires_grad``, the hyperparameters of the param groups (decay, momentum, betas, ...) and the clipping;
    the optimizer's state stays. Batch normalisations and dropouts that a phase holds still do so whenever the model is
    called, also after ``model.train()``. Gradients of parameters that freeze are dropped.

    Args:
        optimizer: Of the first phase.
        plan: With phases.
        model: What the optimizer trains.
        clipper: Clips the gradients before each update.
        clips: Whether it does so in any phase.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: Plan, model: Module, clipper: GradientClipper, clips: bool
    ) -> None:
        self.plan, self.model = plan, model
        self._phase_clipper = clipper
        self._trainable = trainable_parameters(model)
        self._parameters: Parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._phase_index = 0
        self._earlier_reactions: dict[str, Mapping[str, float]] = {}
        self._hooks: list[tuple[Module, RemovableHandle]] = []
        super().__init__(optimizer, plan.phase_plans[0], clipper=clipper if clips else None)
        self._freeze()

    def step(self, *unnamed: object, epoch: int | None = None, metrics: Any = None) -> None:
        """Go on to the next update and begin its phase, or let reactive schedules look at a metric.

        Args:
            unnamed: Refused, as in ``PlanScheduler``.
            epoch: As in torch's schedulers, deprecated there: the update to go to.
            metrics: A number, or numbers by name (``loss``, ``accuracy``); then no update is counted.
        """
        check_step_call(unnamed)
        if metrics is None:
            self._hand_rates.look(self.optimizer.param_groups, self._last_lr)
            self._advance_to(self.last_epoch + 1 if epoch is None else epoch)
        super().step(epoch=epoch, metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in torch's names, and what reactive schedules of all phases have seen."""
        reactions = self.reactions()
        return super().state_dict() | ({"reactions": reactions} if reactions else {})

    def check_reactions(self, state: TrainingState) -> None:
        """Refuse a state with reactions of groups whose schedule reacts in no phase."""
        anywhere = {group.name for there in self.plan.phase_plans for group in there.groups if group.is_reactive}
        state.check_reactions(anywhere & set(state.reactions))

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """What reactive schedules of all phases so far have seen, by group."""
        return {**self._earlier_reactions, **self.live.state()}

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, in its phase, with what reactive schedules have seen."""
        self._earlier_reactions = dict(reactions)
        self._phase_index = self.plan.phase_index(step)
        here = carry_reactions(self.plan, self._phase_index, {})
        self._enter_phase(step, {name: dict(reactions.get(name, new)) for name, new in here.items()})
        super().go_to(step, self.live.state())

    def _advance_to(self, step: int) -> None:
        """Begin every phase up to the one of update ``step``."""
        while self._phase_index < self.plan.phase_index(step):
            self._phase_index += 1
            self._earlier_reactions |= self.live.state()
            self._enter_phase(step, carry_reactions(self.plan, self._phase_index, self._earlier_reactions))

    def _enter_phase(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        plan = self.plan.phases[self._phase_index].plan
        self.live = LiveRates(plan)
        self.live.restore(reactions)
        self.owners = [index for index, group in enumerate(plan.groups) for _ in group.parts]
        self._freeze()
        self._phase_clipper.follow(plan)
        self._replace_param_groups(build_param_groups(plan, self.model, step))
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        slots = export_slots(self.optimizer, self._parameters)
        kept = complete_slots(slots, new_slots(self.optimizer, self._parameters, plan.frozen))
        if any(slots[name].keys() != kept[name].keys() for name in kept):
            import_slots(self.optimizer, self._parameters, {**slots, **kept})
        begin_sums(self.optimizer)

    def _freeze(self) -> None:
        """Set ``requires_grad``, and hold modules still, as the present phase says."""
        plan = self.plan.phases[self._phase_index].plan
        phase = plan.phase or Phase()
        set_trainable(self.model, plan.frozen, self._trainable)
        for module, hook in self._hooks:
            hook.remove()
            module.train(self.model.training)
        still = find_still_modules(self.model, plan.frozen, phase.batch_norm, phase.dropout)
        self._hooks = [(module, module.register_forward_pre_hook(_hold_still)) for module in still]

    def _replace_param_groups(self, groups: list[ParamGroup]) -> None:
        """Give the optimizer's param groups new values, and new members where other parameters decay."""
        own = self.optimizer.param_groups
        if [list(map(id, group["params"])) for group in own] == [list(map(id, group["params"])) for group in groups]:
            for mine, group in zip(own, groups, strict=True):
                mine.update(group)
        else:
            defaults = self.optimizer.defaults
            own[:] = [{**defaults, **group, "initial_lr": group["lr"]} for group in groups]


def _hold_still(module: Module, _: object) -> None:
    module.eval()
