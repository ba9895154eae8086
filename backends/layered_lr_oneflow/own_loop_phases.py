"""Phases in an eager loop of the user's own: one optimizer, and a scheduler that also freezes and changes it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

from layered_lr.models.nn_modules import find_still_modules, parameters_of, set_trainable, trainable_parameters
from layered_lr.plans.param_groups import list_hyperparameters, list_parts
from layered_lr.plans.phase_position import PhasePosition
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import choose_reactions
from layered_lr.spec.phases import Phase
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.clipping import GradientClipper, call_before_step
from layered_lr_oneflow.composed_optimizer import ComposedOptimizer
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.oneflow_types import Module, NativeOptimizer
from layered_lr_oneflow.optimizer import PlanScheduler, check_rates, list_composed_groups
from layered_lr_oneflow.translated_module import Translated
from layered_lr_oneflow.translated_parts import TranslatedPart

_NOT_OURS: Final = frozenset({"params", "name", "lr", "lr_scale", "initial_lr"})
"""What a phase leaves alone in param groups of an optimizer that somebody else made."""


class PhaseScheduler(PlanScheduler):
    """A ``PlanScheduler`` that also begins each phase, before the phase's first update.

    It sets ``requires_grad``, the hyperparameters of the param groups (decay, momentum, betas, ...) and the clipping;
    the optimizer's state stays. Batch normalisations and dropouts that a phase holds still do so whenever the model is
    called, also after ``model.train()``. Gradients of parameters that freeze are dropped.

    The first phase, or the one of a state that was loaded, freezes at the next forward pass of any module of the model.
    Later phases freeze in ``step()``.

    Args:
        optimizer: Of the first phase.
        plan: With phases.
        model: What the optimizer trains.
        clipper: Clips the gradients before each update.
        owners: For each param group the index of its group in the plan.
        places: For each param group of another one's optimizer, the index of its part among those of ``list_parts``;
            its clipper is attached already. None if the optimizer is a ``ComposedOptimizer``.
    """

    def __init__(
        self,
        optimizer: NativeOptimizer,
        plan: Plan,
        model: Module,
        clipper: GradientClipper,
        owners: Sequence[int],
        places: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self._places = places
        self._clipper = clipper
        self._trainable = trainable_parameters(model)
        self._position = PhasePosition(plan)
        self._still: dict[int, Module] = {}
        self._has_frozen = False
        self._always = frozenset.intersection(*(part.frozen for part in plan.phase_plans))
        super().__init__(optimizer, plan, owners, rounds=False)
        self.live = self._position.live
        hook = _BeforeForward(self)
        for module in {id(module): module for module in model.modules()}.values():
            if isinstance(module, Translated) or not isinstance(module, TranslatedPart):  # parts are never called
                module.register_forward_pre_hook(hook)
        call_before_step(optimizer, _make_step_hook(self))
        self._wait()

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """What reactive schedules of all phases so far have seen, by group."""
        return self._position.reactions()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, which after the last update of a phase is that phase's."""
        self._position.observe(max(self.last_step, 0), metrics, unit)
        self.live = self._position.live
        self._apply()

    def check_state(self, state: TrainingState) -> None:
        """Refuse a state that the schedules cannot go on from, before anything is changed.

        Raises:
            CheckpointError: It has reactions of groups whose schedule reacts in no phase.
            SpecError: A schedule has no rate for its step.
        """
        self._position.check_reactions(state)
        reactions = choose_reactions(self.plan, state.step, state.reactions)
        check_rates(self.plan.plan_at(state.step), state.step, reactions)

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, in its phase, with what reactive schedules have seen."""
        self._position.go_to(step, reactions)
        self._enter_phase()
        self._wait()
        self.last_step = step
        self._apply()

    def prepare(self, module: Module) -> None:
        """Do what has to be done before the forward pass of a module."""
        if not self._has_frozen:
            self._freeze()
        if id(module) in self._still:
            module.eval()

    def prepare_update(self) -> None:
        """Freeze where the model was used without the call of any module, and clip."""
        if not self._has_frozen:
            self._freeze()
        if self._places is None:
            self._clipper.clip()

    def _follow(self) -> None:
        """Begin every phase up to the one of update ``last_step``, or go back to it."""
        has_entered = False
        for _ in self._position.follow(max(self.last_step, 0)):
            self._enter_phase()
            has_entered = True
        if has_entered and self._has_frozen:
            self._freeze()

    def _enter_phase(self) -> None:
        self.live = self._position.live
        plan = self.live.plan
        self._float32_rates = Float32Rates(plan, rounds=False)
        self._clipper.begin(plan, self.model)
        groups, undecayed = list_composed_groups(plan, self.model)
        if self._places is not None:
            parts = [list_hyperparameters(part.optimizer) for _, part in list_parts(self.plan, plan)]
            groups = [parts[place] for place in self._places]
        for mine, new in zip(self.optimizer.param_groups, groups, strict=True):
            own = mine._options
            own.update({name: value for name, value in new.items() if name in own and name not in _NOT_OURS})
        if isinstance(self.optimizer, ComposedOptimizer):
            self.optimizer.set_undecayed(undecayed)
            frozen = {id(tensor) for parameter, tensor in parameters_of(self.model) if parameter.name in plan.frozen}
            self.optimizer.fit_states(frozen)

    def _wait(self) -> None:
        """Let everything train that may, until the next forward pass."""
        self._free_modules()
        set_trainable(self.model, self._always, self._trainable)
        self._has_frozen = False

    def _freeze(self) -> None:
        """Set ``requires_grad``, and hold modules still, as the present phase says."""
        self._has_frozen = True
        plan = self.live.plan
        phase = plan.phase or Phase()
        set_trainable(self.model, plan.frozen, self._trainable)
        self._free_modules()
        still = find_still_modules(self.model, plan.frozen, phase.batch_norm, phase.dropout)
        self._still = {id(module): module for module in still}
        for module in still:
            module.eval()

    def _free_modules(self) -> None:
        for module in self._still.values():
            module.train(self.model.training)
        self._still = {}


@final
class _BeforeForward:
    """A hook before the forward pass of every module of a model; a copy of the model has none of it.

    It stays for good: OneFlow 0.9 numbers hooks by their count, so after one was removed another would be replaced.
    """

    def __init__(self, scheduler: PhaseScheduler) -> None:
        self._scheduler = weakref.ref(scheduler)

    def __call__(self, module: Module, _: object) -> None:
        scheduler = self._scheduler()
        if scheduler is not None:
            scheduler.prepare(module)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _get_inert, ()


def _do_nothing(module: Module, _: object) -> None:
    """Stand in a copied module for the hook of the original."""


def _get_inert() -> Callable[[Module, object], None]:
    return _do_nothing


def _make_step_hook(scheduler: PhaseScheduler) -> Callable[[], None]:
    """Make what the optimizer calls before each update; it does not keep the scheduler alive."""
    reference = weakref.ref(scheduler)

    def prepare() -> None:
        alive = reference()
        if alive is not None:
            alive.prepare_update()

    return prepare
