"""The state of a loop of the user's own, eager or with a graph, by parameter name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from layered_lr.errors import CheckpointError, SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow import models
from layered_lr_oneflow.graph_scheduler import GraphScheduler
from layered_lr_oneflow.optimizer import PlanScheduler
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.slot_access import EagerSlots, Held, NativeSlots
from layered_lr_oneflow.slots import SlotBook

_GIVE = (
    "Give what ll.compile gave, (model, optimizer, scheduler), or for a graph (model, graph, graph.scheduler), where "
    "the scheduler is what ll.attach gave: it knows what the optimizer's state means."
)


def export_loop(model: Any, optimizer: Any, scheduler: Any) -> TrainingState:
    """See ``layered_lr.backend.base.Backend.export_loop``; a graph stands where the optimizer does."""
    loop = _loop(model, optimizer, scheduler)
    step = loop.step()
    return TrainingState(
        step=step,
        optimizer=type(loop.plan.spec.optimizer).__name__,
        weights=models.state(model),
        slots=SlotBook(loop.plan, model, frozen_too=True).moved(loop.read(), step),
        reactions=scheduler.live.state(),
    )


def import_loop(state: TrainingState, model: Any, optimizer: Any, scheduler: Any) -> None:
    """See ``layered_lr.backend.base.Backend.import_loop``; a graph stands where the optimizer does."""
    loop = _loop(model, optimizer, scheduler)
    book = SlotBook(loop.plan, model, frozen_too=True)
    own = models.state(model)
    state.check_finite()
    if state.weights:
        state.check_fits(own)
    kind = type(loop.plan.spec.optimizer).__name__
    if any(state.slots.values()) and state.optimizer not in ("", kind):
        raise CheckpointError(f"the state is of {state.optimizer}, the optimizer is {kind}.")
    replace(state, weights=state.weights or own).check_slots(book.new())
    state.check_reactions(scheduler.live.state())
    _check_rates(loop.plan, state)
    models.load(model, state.weights)
    loop.write(book.inward(state.slots), state.step)
    scheduler.load_state_dict({"last_step": state.step, "reactions": state.reactions})


def _check_rates(plan: Plan, state: TrainingState) -> None:
    """Refuse a step that the schedules have no rate for, while nothing has been changed."""
    live = LiveRates(plan)
    live.restore(state.reactions)
    live.rates(state.step)


class _Loop(ABC):
    """A loop's optimizer, wherever it is."""

    plan: Plan

    @abstractmethod
    def step(self) -> int:
        """Updates made so far."""

    @abstractmethod
    def read(self) -> Held:
        """Copies of all slots, by torch's names."""

    @abstractmethod
    def write(self, slots: Held, step: int) -> None:
        """Take these over, which are every parameter's, after so many updates."""


@final
class _EagerLoop(_Loop):
    def __init__(self, model: Any, optimizer: Any, scheduler: Any) -> None:
        if not isinstance(scheduler, PlanScheduler):
            raise SpecError(f"scheduler is {_kind(scheduler)}; must be the one of ll.compile. {_GIVE}")
        if scheduler.optimizer is not optimizer:
            raise SpecError(f"optimizer: not the one that ll.compile gave together with this scheduler. {_GIVE}")
        self.plan = scheduler.live.plan
        self._scheduler, self._optimizer = scheduler, optimizer
        self._slots = EagerSlots(optimizer, model)
        known = {id(tensor) for _, tensor in parameters_of(model)}
        trained = [tensor for group in optimizer.param_groups for tensor in group.parameters]
        if foreign := [tensor for tensor in trained if id(tensor) not in known]:
            raise SpecError(f"optimizer: {len(foreign)} of its {len(trained)} parameters are not the model's.")

    def step(self) -> int:
        return int(self._scheduler.last_step)

    def read(self) -> Held:
        return self._slots.read()

    def write(self, slots: Held, step: int) -> None:
        self._slots.write(slots)
        self._optimizer._state["step"] = step


@final
class _GraphLoop(_Loop):
    def __init__(self, model: Any, graph: Any, scheduler: Any) -> None:
        if not isinstance(scheduler, GraphScheduler):
            raise SpecError(f"scheduler is {_kind(scheduler)}; must be the one of ll.attach. {_GIVE}")
        if scheduler.graph is not graph:
            raise SpecError(f"scheduler: ll.attach gave it for another graph. {_GIVE}")
        mine = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        theirs = scheduler.parameters
        if mine.keys() != theirs.keys() or any(mine[name] is not theirs[name] for name in mine):
            raise SpecError("model: not the one that ll.attach(spec, graph, model) was given for this scheduler.")
        self.plan = scheduler.plan
        self._updates = scheduler.updates
        self._native = NativeSlots(graph, model)

    def step(self) -> int:
        return self.plan.since + (self._native.step() if self._updates is None else self._updates.step())

    def read(self) -> Held:
        return self._native.read() if self._updates is None else self._updates.slots()

    def write(self, slots: Held, step: int) -> None:
        if self._updates is None:
            self._native.write(slots, step - self.plan.since)
            return
        own = self._updates.slots()  # its count goes where the scheduler does
        self._updates.load_slots({name: {slot: slots[name][slot] for slot in own[name]} for name in own})


def _loop(model: Any, optimizer: Any, scheduler: Any) -> _Loop:
    known: Mapping[str, Any] = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    if any(tensor.is_global for tensor in known.values()):
        raise Unsupported("OneFlow backends save and load no global tensors: each rank would see its part.")
    if isinstance(optimizer, flow.nn.Graph):
        loop: _Loop = _GraphLoop(model, optimizer, scheduler)
    elif isinstance(optimizer, flow.optim.Optimizer):
        loop = _EagerLoop(model, optimizer, scheduler)
    else:
        raise SpecError(
            f"optimizer is {_kind(optimizer)}; must be a oneflow.optim.Optimizer or a oneflow.nn.Graph. {_GIVE}"
        )
    if odd := sorted({parameter.name for parameter in loop.plan.parameters} ^ known.keys()):
        raise SpecError(f"model: not the one that the scheduler's plan is for, which differs in {odd[0]!r}.")
    return loop


def _kind(given: Any) -> str:
    return "missing" if given is None else f"a {type(given).__name__}"
