"""A run with phases: one session of the backend after the other, each going on from the state of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Float32, Float64, Int64, Slots
from layered_lr.backend.base import NO_EXTRAS, Backend, Extras, Session, add_seconds
from layered_lr.models.nn_modules import set_trainable, set_training, trainable_parameters
from layered_lr.optimizers.handover import carry_over, complete_slots
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import carry_reactions
from layered_lr.state.training_state import TrainingState

Reactions = Mapping[str, Mapping[str, float]]


def open_session(
    backend: Backend, plan: Plan, model: Any, num_classes: int, extras: Extras = NO_EXTRAS, step: int = 0
) -> Session:
    """A session for any plan: the backend's own, or a ``PhasedSession`` of them where the plan has phases."""
    if not plan.phases:
        return backend.open(plan, model, num_classes, extras, step)
    return PhasedSession(backend, plan, model, num_classes, extras, step)


@dataclass(eq=False)
class _Loss:
    """A loss of one of the sessions, and its number as soon as that is known."""

    handle: Any
    number: float | None = None


class _Past(NamedTuple):
    """What a session that has ended applied and measured; the first axis is the update from ``start`` on."""

    start: int
    rates: Float64
    grad_norms: Float64


class PhasedSession(Session):
    """Trains a plan with phases; the model is its own from the start to the end.

    A phase begins right before its first update, so that what is measured after the last update of the one before
    (an epoch's metrics, a checkpoint) is still that one's: the state after update ``t`` is of the phase that made it.
    The session of the next phase then goes on from the state of this one. What the optimizer keeps of frozen
    parameters waits here until they train again: counters of their own updates stand still, as torch's do where a
    gradient is None. A switch of the optimizer carries over what its phase says, for parameters that wait too.

    Reactive schedules go on, or begin anew, as ``layered_lr.plans.reactive_rates.carry_reactions`` says.

    Args:
        backend: Opens the sessions.
        plan: With phases.
        model: The backend's. Parameters that have ``requires_grad=False`` now never train.
        num_classes: As in ``Session``.
        extras: As in ``Session``.
        step: Updates that the run has made before.
    """

    def __init__(
        self, backend: Backend, plan: Plan, model: Any, num_classes: int, extras: Extras = NO_EXTRAS, step: int = 0
    ) -> None:
        clips = any(there.spec.clip_grad_norm is not None for there in plan.phase_plans)
        extras = extras._replace(grad_norms=extras.grad_norms or clips)
        super().__init__(plan.phase_plans[0], num_classes, extras, step)
        self.plan = plan
        self.backend, self.model = backend, model
        self._trainable = trainable_parameters(model)
        self._pending: list[_Loss] = []
        self._past: list[_Past] = []
        self._waiting: Slots = {}  # of frozen parameters
        self._remembered: Reactions = {}  # of groups that react in other phases
        self._place = plan.phase_index(step)
        self._compiled: float | None = None  # by sessions that have ended
        self._take(self._open(self._place, step))

    def _take(self, inner: Session) -> None:
        """Go on with another session."""
        self._compiled = self.compile_seconds
        self.inner = inner
        self.steps_ahead, self.wants_channels_last = inner.steps_ahead, inner.wants_channels_last
        self._count_compiling()

    def _count_compiling(self) -> None:
        self.compile_seconds = add_seconds(self._compiled, self.inner.compile_seconds)

    def _open(self, place: int, step: int) -> Session:
        there = self.plan.phases[place].plan
        set_trainable(self.model, (), self._trainable)  # the session freezes what it is to
        phase_plans = self.plan.phase_plans
        return self.backend.open(there, self.model, self.num_classes, self.extras, step, phase_plans)

    def _update(self, images: Float32, labels: Int64, parts: int) -> _Loss:
        if self.plan.phase_index(self.step) != self._place:
            self._enter_next()
        loss = _Loss(self.inner.train_step(images, labels, parts))
        self._count_compiling()
        self._pending.append(loss)
        return loss

    def _enter_next(self) -> None:
        self._end_session()
        state = self.inner.export_state()
        self._remembered = {**self._remembered, **state.reactions}
        slots = self._carry_over({**self._waiting, **state.slots}, self._place + 1)
        self._place += 1
        if not self.inner.enter(self.plan.phases[self._place].plan):
            del self.inner  # what it holds of the framework's memory goes before the next one comes
            self._take(self._open(self._place, self.step))
        slots = {**slots, **complete_slots(slots, self.inner._new_slots())}
        self._give(replace(state, slots=slots, reactions=carry_reactions(self.plan, self._place, self._remembered)))

    def _end_session(self) -> None:
        """Take from a session what it noted, before it goes away."""
        self.losses(self._pending)
        if self.step > self.inner.start:
            norms = np.empty((self.step - self.inner.start, 0))
            if self.extras.grad_norms:
                norms = self.inner.grad_norms(self.inner.start, self.step)
            self._past.append(_Past(self.inner.start, self.inner.rates(self.inner.start, self.step), norms))

    def _carry_over(self, slots: Slots, place: int) -> Slots:
        """The slots that a phase's optimizers take over from those of the phase before it."""
        old, new = (
            {name: group.optimizer for group in self.plan.phases[number].plan.groups for name in group.parameters}
            for number in (place - 1, place)
        )
        return carry_over(slots, old, new, self.plan.phases[place].settings.carry)

    def _give(self, state: TrainingState) -> None:
        """Have the current session go on from a state; the slots of what is frozen in it wait."""
        there = self.plan.phases[self._place].plan
        waiting = {name: slots for name, slots in state.slots.items() if name in there.frozen}
        training = {name: slots for name, slots in state.slots.items() if name not in there.frozen}
        optimizer = type(there.spec.optimizer).__name__  # that of a phase before, where nothing was carried
        self.inner.import_state(replace(state, slots=training, optimizer=optimizer))
        self._waiting = waiting

    def import_state(self, state: TrainingState) -> None:
        """See ``Session.import_state``; enters the phase that the state is of first.

        Raises:
            CheckpointError: As there; the model then still trains in the phase that it was in.
        """
        place = self.plan.phase_index(max(state.step - 1, 0))
        there = self.plan.phases[place].plan
        reacting = {group.name for group in there.groups if group.is_reactive}
        anywhere = {group.name for plan in self.plan.phase_plans for group in plan.groups if group.is_reactive}
        state.check_optimizer(there.spec.optimizer)
        state.check_fits(self.weights())
        state.check_slots({})
        state.check_reactions(reacting | (anywhere & set(state.reactions)))
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
        """See ``Session.pass_over``; where the update would begin a phase, that has begun."""
        if self.plan.phase_index(state.step) != self.plan.phase_index(max(state.step - 1, 0)):
            self.import_state(state)
            self._enter_next()
            optimizer = type(self.inner.plan.spec.optimizer).__name__
            state = replace(self.export_state(), optimizer=optimizer)
        super().pass_over(state)

    def _hold_still(self) -> None:
        """Bring the model to where the current phase has it."""
        there = self.plan.phases[self._place]
        set_trainable(self.model, there.plan.frozen, self._trainable)
        set_training(self.model, there.plan.frozen, there.settings.batch_norm, there.settings.dropout)

    def random_modules(self) -> tuple[str, ...]:
        """See ``Session.random_modules``."""
        return self.inner.random_modules()

    def losses(self, handles: Sequence[_Loss]) -> Float64:
        """See ``Session.losses``."""
        open_ones = [loss for loss in handles if loss.number is None]
        for loss, number in zip(open_ones, self.inner.losses([loss.handle for loss in open_ones]), strict=True):
            loss.number, loss.handle = float(number), None
        self._pending = [loss for loss in self._pending if loss.number is None]
        return np.array([loss.number for loss in handles], dtype=np.float64)

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self.inner.observe(metrics, unit)

    def logits(self, images: Float32, ema: bool = False) -> NDArray[np.floating[Any]]:
        """See ``Session.logits``."""
        return self.inner.logits(images, ema)

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: of all phases so far, since the state that was imported last, if any was."""
        here = self.inner.rates(max(start, self.inner.start), max(stop, self.inner.start))
        return self._since(start, stop, [past.rates for past in self._past], here)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``: as for ``rates``."""
        here = self.inner.grad_norms(max(start, self.inner.start), max(stop, self.inner.start))
        return self._since(start, stop, [past.grad_norms for past in self._past], here)

    def _since(self, start: int, stop: int, tables: list[Float64], here: Float64) -> Float64:
        parts = [
            table[max(start - past.start, 0) : max(stop - past.start, 0)]
            for past, table in zip(self._past, tables, strict=True)
        ]
        return np.concatenate([*parts, here])

    def weights(self) -> dict[str, Array]:
        """See ``Session.weights``."""
        return self.inner.weights()

    def ema_weights(self) -> dict[str, Array]:
        """See ``Session.ema_weights``."""
        return self.inner.ema_weights()

    def _slots(self) -> Slots:
        return {**self._waiting, **self.inner._slots()}

    def _new_slots(self) -> Slots:
        return self.inner._new_slots()

    def _reactions(self) -> Reactions:
        return {**self._remembered, **self.inner._reactions()}

    def _random(self) -> Mapping[str, Array]:
        return self.inner._random()

    def _import(self, state: TrainingState) -> None:
        self._give(state)
