"""A run with phases: one session for each phase, which begins with the state of the session before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Array, Arrays, Float32, Float64, Floats, Slots, Targets, Weights
from layered_lr.backend.base import Backend
from layered_lr.backend.session import NO_EXTRAS, Extras, Session, StepOutcome, add_seconds
from layered_lr.models.nn_modules import Module, set_trainable, set_training, trainable_parameters
from layered_lr.optimizers.handover import carry_over, complete_slots
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Metrics, Reactions, carry_reactions, list_reactive
from layered_lr.state.training_state import TrainingState


def open_session(
    backend: Backend, plan: Plan, model: Module, num_classes: int, extras: Extras = NO_EXTRAS, step: int = 0
) -> Session:
    """Open a session for any plan: a session of the backend, or a ``PhasedSession`` if the plan has phases.

    Args:
        backend: The backend.
        plan: The plan of the whole run.
        model: A model of the backend.
        num_classes: Labels are 0 to ``num_classes - 1``.
        extras: What the session does in addition.
        step: Updates that the run has made before.
    """
    if not plan.phases:
        return backend.open(plan, model, num_classes, extras, step)
    return PhasedSession(backend, plan, model, num_classes, extras, step)


@dataclass(eq=False)
class _Loss:
    """A loss of one of the sessions, and its number as soon as it is known."""

    outcome: StepOutcome | None
    number: float | None = None


class _Past(NamedTuple):
    """The rates and gradient norms of a session that has ended; the first axis is the update, from ``start`` on."""

    start: int
    rates: Float64
    grad_norms: Float64


class PhasedSession(Session):
    """A session that trains a plan with phases, with one session of the backend for each phase.

    A phase begins right before its first update. What comes after the last update of a phase, such as the metrics of an
    epoch or a checkpoint, therefore still belongs to that phase: the state after update ``t`` is of the phase that made
    the update. The session of the next phase continues from that state.

    The optimizer state of frozen parameters is kept here until they train again. The counters of their updates stand
    still, as in torch when a gradient is None. If a phase switches the optimizer, its ``carry`` also holds for frozen
    parameters.

    A reactive schedule continues in the next phase if the group has the same one there, with the same ``lr`` and
    counted from the same update. Otherwise it starts from the beginning.

    Args:
        backend: Opens the sessions.
        plan: A plan with phases.
        model: A model of the backend. Parameters that have ``requires_grad=False`` now never train.
        num_classes: Labels are 0 to ``num_classes - 1``.
        extras: What the sessions do in addition.
        step: Updates that the run has made before.
    """

    def __init__(
        self, backend: Backend, plan: Plan, model: Module, num_classes: int, extras: Extras = NO_EXTRAS, step: int = 0
    ) -> None:
        clips = any(phase_plan.spec.clip_grad_norm is not None for phase_plan in plan.phase_plans)
        extras = extras._replace(grad_norms=extras.grad_norms or clips)
        super().__init__(plan.phase_plans[0], num_classes, extras, step)
        self.plan = plan
        self.backend, self.model = backend, model
        self._trainable = trainable_parameters(model)
        self._pending: list[_Loss] = []
        self._past: list[_Past] = []
        self._waiting: Slots = {}  # the slots of frozen parameters
        self._remembered: Reactions = {}  # the last state of groups that are reactive in other phases
        self._place = plan.phase_index(step)
        self._compiled: float | None = None  # seconds of compiling in sessions that have ended
        self._take(self._open(self._place, step))

    def _take(self, inner: Session) -> None:
        """Continue with another session."""
        self._compiled = self.compile_seconds
        self.inner = inner
        self.steps_ahead, self.wants_channels_last = inner.steps_ahead, inner.wants_channels_last
        self._count_compiling()

    def _count_compiling(self) -> None:
        self.compile_seconds = add_seconds(self._compiled, self.inner.compile_seconds)

    def _open(self, place: int, step: int) -> Session:
        set_trainable(self.model, (), self._trainable)  # the session itself freezes the parameters of its phase
        phase_plans = self.plan.phase_plans
        return self.backend.open(phase_plans[place], self.model, self.num_classes, self.extras, step, phase_plans)

    def _update(self, images: Float32, labels: Targets, parts: int) -> StepOutcome:
        if self.plan.phase_index(self.step) != self._place:
            self._enter_next()
        outcome = self.inner.train_step(images, labels, parts, self.whole)
        self._count_compiling()
        loss = _Loss(outcome)
        if outcome.made_update:
            self._pending.append(loss)
        return outcome._replace(loss=loss)

    def _enter_next(self) -> None:
        self._end_session()
        state = self.inner.export_state()
        self._remembered = {**self._remembered, **state.reactions}
        slots = self._carry_over({**self._waiting, **state.slots}, self._place + 1)
        self._place += 1
        if not self.inner.enter(self.plan.phases[self._place].plan):
            del self.inner  # this frees its memory before the next session needs some
            self._take(self._open(self._place, self.step))
        slots = {**slots, **complete_slots(slots, self.inner._new_slots())}
        self._give(replace(state, slots=slots, reactions=carry_reactions(self.plan, self._place, self._remembered)))

    def _end_session(self) -> None:
        """Read what a session recorded before it is removed."""
        self._losses(self._pending)
        if self.step > self.inner.start:
            norms = np.empty((self.step - self.inner.start, 0))
            if self.extras.grad_norms:
                norms = self.inner.grad_norms(self.inner.start, self.step)
            self._past.append(_Past(self.inner.start, self.inner.rates(self.inner.start, self.step), norms))

    def _carry_over(self, slots: Slots, place: int) -> Slots:
        """Return the slots that the optimizers of a phase take over from those of the phase before it."""
        old, new = (
            {name: group.optimizer for group in self.plan.phases[number].plan.groups for name in group.parameters}
            for number in (place - 1, place)
        )
        return carry_over(slots, old, new, self.plan.phases[place].settings.carry)

    def _give(self, state: TrainingState) -> None:
        """Let the current session continue from a state, and keep the slots of frozen parameters here."""
        plan = self.plan.phases[self._place].plan
        waiting = {name: slots for name, slots in state.slots.items() if name in plan.frozen}
        training = {name: slots for name, slots in state.slots.items() if name not in plan.frozen}
        given = replace(state, slots=training)  # the state may name the optimizers of the phase before
        self.inner.import_state(given.with_kinds(type(plan.spec.optimizer).__name__, plan.kinds))
        self._waiting = waiting

    def import_state(self, state: TrainingState) -> None:
        """Continue from a state, in the phase that made it.

        Raises:
            CheckpointError: The state does not fit the plan or the model. Then nothing has changed.
        """
        place = self.plan.phase_index(max(state.step - 1, 0))
        phase_plan = self.plan.phases[place].plan
        reacting = {group.name for group in phase_plan.groups if group.is_reactive}
        state.check_optimizer(phase_plan.kinds)
        state.check_fits(self._state_weights())
        state.check_slots({})
        state.check_reactions(reacting | (list_reactive(self.plan) & set(state.reactions)))
        given = replace(state, reactions={name: state.reactions[name] for name in reacting})
        old = (self._place, self.inner)
        try:
            if place != self._place:
                self._place, self.inner = place, self._open(place, state.step)
            self._give(given)
        except BaseException:
            self._place, self.inner = old
            self._hold_still()
            raise
        if self.inner is not old[1]:
            self._take(self.inner)
        self._remembered = {name: dict(seen) for name, seen in state.reactions.items() if name not in reacting}
        self._pending, self._past = [], []
        self.start = self.step = state.step

    def pass_over(self, state: TrainingState) -> None:
        """Continue as if one more update had been made that changed only the count; a phase may begin with it."""
        if self.plan.phase_index(state.step) != self.plan.phase_index(max(state.step - 1, 0)):
            self.import_state(state)
            self._enter_next()
            plan = self.inner.plan
            state = self.export_state().with_kinds(type(plan.spec.optimizer).__name__, plan.kinds)
        super().pass_over(state)

    def _hold_still(self) -> None:
        """Freeze what the current phase freezes."""
        phase = self.plan.phases[self._place]
        set_trainable(self.model, phase.plan.frozen, self._trainable)
        set_training(self.model, phase.plan.frozen, phase.settings.batch_norm, phase.settings.dropout)

    def check_savable(self) -> None:
        """Refuse a model whose state cannot be saved whole."""
        self.inner.check_savable()

    def without_gradient(self) -> tuple[str, ...]:
        """Return the names of the parameters that this phase is to train, and that have had no gradient in it."""
        return self.inner.without_gradient()

    def random_modules(self) -> tuple[str, ...]:
        """Return the names of the modules whose random numbers no state can restore."""
        return self.inner.random_modules()

    def _losses(self, handles: Sequence[_Loss]) -> Float64:
        unread = [(loss, loss.outcome) for loss in handles if loss.outcome is not None]
        numbers = self.inner.losses([outcome for _, outcome in unread])
        for (loss, _), number in zip(unread, numbers, strict=True):
            loss.number, loss.outcome = float(number), None
        self._pending = [loss for loss in self._pending if loss.number is None]
        return np.array([loss.number for loss in handles], dtype=np.float64)

    def observe(self, metrics: Metrics, unit: str) -> None:
        """Let reactive schedules of the current phase read the metrics of a step or an epoch."""
        self.inner.observe(metrics, unit)

    def logits(self, images: Float32, ema: bool = False, shares: bool = False) -> Floats:
        """Return the model's output in evaluation mode, shape (N, classes)."""
        return self.inner.logits(images, ema, shares)

    def rates(self, start: int, stop: int) -> Float64:
        """Return the rates of updates ``start`` to ``stop - 1``, which may be in several phases."""
        here = self.inner.rates(max(start, self.inner.start), max(stop, self.inner.start))
        return self._since(start, stop, [past.rates for past in self._past], here)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """Return each group's gradient norm at updates ``start`` to ``stop - 1``, which may be in several phases."""
        here = self.inner.grad_norms(max(start, self.inner.start), max(stop, self.inner.start))
        return self._since(start, stop, [past.grad_norms for past in self._past], here)

    def _since(self, start: int, stop: int, tables: list[Float64], here: Float64) -> Float64:
        parts = [
            table[max(start - past.start, 0) : max(stop - past.start, 0)]
            for past, table in zip(self._past, tables, strict=True)
        ]
        return np.concatenate([*parts, here])

    def weights(self) -> dict[str, Array]:
        """Return a copy of every parameter and buffer, by name."""
        return self.inner.weights()

    def ema_weights(self) -> dict[str, Array]:
        """Return a copy of the moving average of every parameter and buffer, by name."""
        return self.inner.ema_weights()

    def _state_weights(self) -> Weights:
        return self.inner._state_weights()

    def _state_averages(self) -> Weights:
        return self.inner._state_averages()

    def _slots(self) -> Slots:
        return {**self._waiting, **self.inner._slots()}

    def _new_slots(self) -> Slots:
        return self.inner._new_slots()

    def _reactions(self) -> Reactions:
        return {**self._remembered, **self.inner._reactions()}

    def _unsaved(self) -> Arrays:
        return self.inner._unsaved()

    def _unsaved_averages(self) -> Arrays:
        return self.inner._unsaved_averages()

    def _scaler_state(self) -> Mapping[str, float]:
        return self.inner._scaler_state()

    def _random(self) -> Arrays:
        return self.inner._random()

    def _import(self, state: TrainingState) -> None:
        self._give(state)
