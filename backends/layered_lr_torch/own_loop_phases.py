"""Phases in a loop of the user's own: one optimizer, and a scheduler that also freezes and changes hyperparameters."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import find_still_modules, parameters_of, set_trainable, trainable_parameters
from layered_lr.plans.param_groups import find_owners
from layered_lr.plans.phase_position import PhasePosition
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_torch.callers import is_called_by
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.module_hooks import FirstForward, StillHook
from layered_lr_torch.new_states import NewStates
from layered_lr_torch.optimizer import build_param_groups
from layered_lr_torch.plan_scheduler import PlanScheduler, set_number
from layered_lr_torch.replicas import has_replicas, reduce_what_trains
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.slots import fit_states
from layered_lr_torch.torch_types import Module, Parameters, ParamGroup, Tensor

_NOT_OURS = frozenset({"name", "foreach", "fused", "capturable", "differentiable"})
"""What a phase leaves alone in param groups of an optimizer that somebody else made."""


class PhaseScheduler(PlanScheduler):
    """A ``PlanScheduler`` that also begins each phase, before the phase's first update.

    It sets ``requires_grad``, the hyperparameters of the param groups (decay, momentum, betas, ...) and the clipping;
    the optimizer's state stays. Batch normalisations and dropouts that a phase holds still do so whenever the model is
    called, also after ``model.train()``. Gradients of parameters that freeze are dropped.

    The first phase, or the one of a state that was loaded, freezes at the next forward pass: until then wrap the model,
    and load states in any order. Later phases freeze in ``step()``.

    Args:
        optimizer: Of the first phase.
        plan: With phases.
        model: What the optimizer trains.
        clipper: Clips the gradients before each update.
        places: For each param group of another one's optimizer, the index of the group of ``build_param_groups`` that
            it is in; None if the optimizer is from ``build_optimizer``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        model: Module,
        clipper: GradientClipper,
        places: list[int] | None = None,
    ) -> None:
        self.model = model
        self._places = places
        self._clipper = clipper
        self._trainable = trainable_parameters(model)
        self._parameters: Parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._position = PhasePosition(plan)
        self._still: list[tuple[Module, RemovableHandle]] = []
        self._first_forward: FirstForward | None = None
        self._has_frozen = False
        always = frozenset.intersection(*(part.frozen for part in plan.phase_plans))
        set_trainable(model, always)
        free = {id(tensor) for tensor in self._trainable}
        self._new_states = NewStates(
            [tensor for name, tensor in self._parameters.items() if name not in always and id(tensor) in free]
        )
        owners = find_owners(plan)
        super().__init__(
            optimizer, plan, owners=owners if places is None else [owners[place] for place in places], watches=True
        )
        self.live = self._position.live
        self._attach()
        self._wait()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_still": [], "_first_forward": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Let a copy, whose model and optimizer have no hooks, go on as the original."""
        vars(self).update(state)
        self._attach()
        if self._has_frozen:
            self._freeze()
        else:
            self._wait()

    def check_reactions(self, state: TrainingState) -> None:
        """Refuse a state with reactions of groups whose schedule reacts in no phase."""
        self._position.check_reactions(state)

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """What reactive schedules of all phases so far have seen, by group."""
        return self._position.reactions()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, which after the last update of a phase is that phase's."""
        self._position.observe(max(self.last_epoch, 0), metrics, unit)
        self.live = self._position.live
        self._apply()

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, in its phase, with what reactive schedules have seen."""
        self._position.go_to(step, reactions)
        self._enter_phase(step)
        self._wait()
        super().go_to(step, self.live.state())

    def _follow(self) -> None:
        """Begin every phase up to the one of update ``last_epoch``, or go back to it."""
        step = max(self.last_epoch, 0)
        has_entered = False
        for _ in self._position.follow(step):
            self._enter_phase(step)
            has_entered = True
        if has_entered and self._has_frozen:
            self._freeze()
            if has_replicas():
                self._call_at_forward()

    def _enter_phase(self, step: int) -> None:
        self.live = self._position.live
        plan = self.live.plan
        self._clipper.follow(plan)
        self._set_param_groups(step)
        if self._knows_states:
            fit_states(self.optimizer, self._parameters, plan.frozen)

    def _set_param_groups(self, step: int) -> None:
        """Give the param groups the hyperparameters of the phase."""
        for mine, changes in zip(self.optimizer.param_groups, self._list_changes(step), strict=False):
            for name, value in changes.items():
                set_number(mine, name, value)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _list_changes(self, step: int) -> list[ParamGroup]:
        """What the phase of an update sets in each param group."""
        groups = build_param_groups(self.plan, self.model, step)
        places = range(len(groups)) if self._places is None else self._places
        return [
            {
                name: value
                for name, value in groups[place].items()
                if name != "params" and (self._places is None or (name in mine and name not in _NOT_OURS))
            }
            for mine, place in zip(self.optimizer.param_groups, places, strict=False)
        ]

    def param_groups_at(self, step: int) -> list[ParamGroup]:
        """The optimizer's param groups as the phase of an update has them."""
        mine, changes = self.optimizer.param_groups, self._list_changes(step)
        return [{**group, **change} for group, change in zip(mine, changes, strict=False)] + mine[len(changes) :]

    def exchange(self, new: Callable[[Tensor], Tensor]) -> None:
        """Go on with the objects that ``new`` gives for the parameters so far."""
        self._trainable = [new(tensor) for tensor in self._trainable]
        self._parameters = {name: new(tensor) for name, tensor in self._parameters.items()}
        self._new_states.waiting = [new(tensor) for tensor in self._new_states.waiting]

    def _attach(self) -> None:
        """Give the optimizer the hooks of phases, which torch leaves out of its copies."""
        if self._knows_states:
            self._new_states.attach(self.optimizer)
        handle = self.optimizer.register_step_pre_hook(_FreezeBeforeStep(self))
        hooks: Any = self.optimizer._optimizer_step_pre_hooks
        hooks.move_to_end(handle.id, last=False)  # before the clipper's

    @property
    def _knows_states(self) -> bool:
        """Whether the optimizer's class is one of which it is known how to make another one."""
        return self._places is None or type(self.optimizer).__module__.startswith(("torch.optim.", "layered_lr_torch."))

    def _wait(self) -> None:
        """Let everything train that may, until the next forward pass."""
        self._free_modules()
        plan = self.live.plan
        always = frozenset.intersection(*(part.frozen for part in self.plan.phase_plans))
        set_trainable(self.model, always, self._trainable)
        self._has_frozen = not plan.frozen
        self._call_at_forward()

    def _call_at_forward(self) -> None:
        if self._first_forward is not None:
            self._first_forward.remove()
        self._first_forward = FirstForward(self.model.modules(), self._begin_phase)

    def _begin_phase(self) -> None:
        """Do what has to be done at the first forward pass of a phase.

        Raises:
            Unsupported: The model was sharded after the scheduler was made.
        """
        now = [tensor for _, tensor in parameters_of(self.model)]
        known = {id(tensor) for tensor in self._parameters.values()}
        if any(is_sharded(tensor) and id(tensor) not in known for tensor in now):
            raise Unsupported(
                "phases: the model was sharded (fully_shard) after ll.compile or ll.scheduler was called, so what it "
                "freezes is no part of the model any more. Call it after fully_shard."
            )
        if _is_functional(any(id(tensor) not in known for tensor in now)):
            self._call_at_forward()
            return
        self._freeze()
        reduce_what_trains(self.model)

    def freeze_late(self) -> None:
        """Freeze before an update, where the model was used without the call of any module."""
        frozen = [self._parameters[name] for name in self.live.plan.frozen]
        if self._has_frozen or all(tensor.grad is None for tensor in frozen):
            return
        moves = any(float(group["lr"]) for group in self.optimizer.param_groups)
        if moves or any(tensor.grad is not None and bool(tensor.grad.any()) for tensor in frozen):
            self._freeze()  # else a tool only makes new states, as torch.distributed.checkpoint does

    def _freeze(self) -> None:
        """Set ``requires_grad``, and hold modules still, as the present phase says."""
        self._has_frozen = True
        plan = self.live.plan
        phase = plan.phase or Phase()
        set_trainable(self.model, plan.frozen, self._trainable)
        self._free_modules()
        still = find_still_modules(self.model, plan.frozen, phase.batch_norm, phase.dropout)
        self._still = [(module, module.register_forward_pre_hook(StillHook())) for module in still]
        for module in still:  # the forward pass of one of them may have begun
            module.eval()

    def _free_modules(self) -> None:
        for module, hook in self._still:
            hook.remove()
            module.train(self.model.training)
        self._still = []


def _is_functional(has_other_tensors: bool) -> bool:
    """Whether a forward pass is one with other tensors in the parameters' place, or one that torch.func transforms."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return has_other_tensors and is_called_by("torch/nn/utils/stateless.py", "torch/_functorch/functional_call.py")


class _FreezeBeforeStep:
    """A hook before ``optimizer.step``; it does not keep the scheduler alive."""

    def __init__(self, scheduler: PhaseScheduler) -> None:
        self._scheduler = weakref.ref(scheduler)

    def __call__(self, *_: object) -> None:
        scheduler = self._scheduler()
        if scheduler is not None:
            scheduler.freeze_late()
