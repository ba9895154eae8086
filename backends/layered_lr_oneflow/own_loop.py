"""The state of a loop of the user's own, eager or with a graph, exported and imported by parameter name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np

from layered_lr.arrays import Slots
from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.single_optimizer import enter_phase
from layered_lr.state.training_state import TrainingState, find_masks, find_unusual
from layered_lr_oneflow import models
from layered_lr_oneflow.composed_optimizer import ComposedOptimizer
from layered_lr_oneflow.graph_scheduler import GraphScheduler
from layered_lr_oneflow.oneflow_types import Graph, Module, NativeOptimizer, Tensor
from layered_lr_oneflow.optimizer import PlanScheduler
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.slot_access import EagerSlots, NativeSlots
from layered_lr_oneflow.slots import SlotConverter

_GIVE = (
    "Give what ll.compile gave, (model, optimizer, scheduler), or for a graph (model, graph, graph.scheduler), where "
    "the scheduler is what ll.attach gave: it knows what the optimizer's state means."
)


def export_loop(model: Module, optimizer: NativeOptimizer | Graph, scheduler: Any) -> TrainingState:
    """Copy the state of a loop of the user's own.

    Args:
        model: What the loop trains.
        optimizer: What ``layered_lr.compile`` returned, or the graph that ``layered_lr.attach`` was given.
        scheduler: What ``layered_lr.compile`` or ``layered_lr.attach`` returned.

    Raises:
        SpecError: These three do not go together.
        Unsupported: The model has global tensors.
    """
    loop = _find_loop(model, optimizer, scheduler)
    step = loop.step()
    there = scheduler.here
    weights = models.copy_state(model)
    optimizer = type(there.spec.optimizer).__name__
    return TrainingState(
        step=step,
        optimizer=optimizer,
        kinds=find_unusual(optimizer, there.kinds),
        weights=weights,
        slots={**SlotConverter(there, model, frozen_too=True).export_changed_slots(loop.read(), step), **loop.waiting},
        reactions=scheduler.reactions(),
        unsaved=models.copy_unsaved(model),
        masks=find_masks(weights, [name for parameter in loop.plan.parameters for name in parameter.names]),
    )


def import_loop(state: TrainingState, model: Module, optimizer: NativeOptimizer | Graph, scheduler: Any) -> None:
    """Let a loop of the user's own go on from a state.

    Args:
        state: From any backend. Without weights it leaves the model as it is.
        model: As in ``export_loop``.
        optimizer: As in ``export_loop``. Parameters without slots in the state begin with new ones.
        scheduler: As in ``export_loop``.

    Raises:
        SpecError: As in ``export_loop``.
        Unsupported: As in ``export_loop``.
        CheckpointError: The state does not fit the model, the optimizer or the scheduler.
    """
    loop = _find_loop(model, optimizer, scheduler)
    there = loop.plan.plan_at(state.step)
    converter = SlotConverter(there, model, frozen_too=True)
    own = models.copy_state(model)
    state.check_finite()
    if state.weights:
        state.check_fits(own)
    if state.optimizer:
        state.check_optimizer(there.kinds)
    training = {name: slots for name, slots in converter.new_slots().items() if name not in there.frozen}
    state = enter_phase(loop.plan, state, training)
    replace(state, weights=state.weights or own).check_slots(training)
    scheduler.check_state(state)
    models.load_state(model, state.weights)
    models.load_unsaved(model, state.unsaved)
    scheduler.go_to(state.step, state.reactions)
    taken = converter.import_slots(state.slots)
    loop.write({name: slots for name, slots in taken.items() if name not in there.frozen}, state.step)
    loop.wait({name: state.slots.get(name, {}) for name in there.frozen})


class _Loop(ABC):
    """Access to a loop's optimizer, in eager mode or in a graph."""

    plan: Plan

    @abstractmethod
    def step(self) -> int:
        """How many updates were made so far."""

    @property
    def waiting(self) -> Slots:
        """What ``wait`` was given, unless ``read`` returns it."""
        return {}

    @abstractmethod
    def wait(self, slots: Slots) -> None:
        """Keep the slots of parameters that the phase freezes, as they are; they may not fit the phase's options."""

    @abstractmethod
    def read(self) -> Slots:
        """Copy all slots, by torch's names."""

    @abstractmethod
    def write(self, slots: Slots, step: int) -> None:
        """Replace the slots of every parameter, and go on as if ``step`` updates had been made."""


@final
class _EagerLoop(_Loop):
    def __init__(self, model: Module, optimizer: NativeOptimizer | Graph, scheduler: Any) -> None:
        if not isinstance(scheduler, PlanScheduler):
            raise SpecError(f"scheduler is {_describe(scheduler)}; must be the one of ll.compile. {_GIVE}")
        if scheduler.optimizer is not optimizer:
            raise SpecError(f"optimizer: not the one that ll.compile gave together with this scheduler. {_GIVE}")
        self.plan = scheduler.plan
        _check_known(optimizer, type(scheduler.here.spec.optimizer).__name__)
        self._scheduler, self._optimizer = scheduler, optimizer
        self._slots = EagerSlots(optimizer, model)
        known = {id(tensor) for _, tensor in parameters_of(model)}
        trained = [tensor for group in optimizer.param_groups for tensor in group.parameters]
        if foreign := [tensor for tensor in trained if id(tensor) not in known]:
            raise SpecError(
                f"optimizer: {len(foreign)} of its {len(trained)} parameters are not the model's. Give the model that "
                "the optimizer was made for."
            )

    def step(self) -> int:
        return int(self._scheduler.last_step)

    def read(self) -> Slots:
        return self._slots.read()

    def wait(self, slots: Slots) -> None:
        # SGD's rule may count: of a parameter with a momentum buffer, the next update is not the first one
        self._slots.write({name: {"step": np.array(1.0), **given} if given else {} for name, given in slots.items()})

    def write(self, slots: Slots, step: int) -> None:
        self._slots.write(slots)
        self._optimizer._state["step"] = step


@final
class _GraphLoop(_Loop):
    def __init__(self, model: Module, graph: Graph, scheduler: Any) -> None:
        if not isinstance(scheduler, GraphScheduler):
            raise SpecError(f"scheduler is {_describe(scheduler)}; must be the one of ll.attach. {_GIVE}")
        if scheduler.graph is not graph:
            raise SpecError(f"scheduler: ll.attach gave it for another graph. {_GIVE}")
        mine = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        theirs = scheduler.parameters
        if mine.keys() != theirs.keys() or any(mine[name] is not theirs[name] for name in mine):
            raise SpecError("model: not the one that ll.attach(spec, graph, model) was given for this scheduler.")
        self.plan = scheduler.plan
        self._scheduler = scheduler
        self._updates = scheduler.updates
        self._native = NativeSlots(graph, model)

    @property
    def _since(self) -> int:
        return self._scheduler.here.since

    @property
    def waiting(self) -> Slots:
        return self._scheduler.waiting

    def wait(self, slots: Slots) -> None:
        self._scheduler.waiting = {name: dict(given) for name, given in slots.items() if given}

    def step(self) -> int:
        return self._since + (self._native.step() if self._updates is None else self._updates.step())

    def read(self) -> Slots:
        return self._native.read() if self._updates is None else self._updates.slots()

    def write(self, slots: Slots, step: int) -> None:
        if self._updates is None:
            self._native.write(slots, step - self._since)
            return
        own = self._updates.slots()  # the scheduler sets the step
        self._updates.load_slots({name: {slot: slots[name][slot] for slot in own[name]} for name in own})


def _find_loop(model: Module, optimizer: NativeOptimizer | Graph, scheduler: Any) -> _Loop:
    known: Mapping[str, Tensor] = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    if any(tensor.is_global for tensor in known.values()):
        raise Unsupported(
            "OneFlow backends save and load no global tensors: each rank would see its part. Use local tensors, or the "
            "graph's own state_dict()."
        )
    if isinstance(optimizer, flow.nn.Graph):
        loop: _Loop = _GraphLoop(model, optimizer, scheduler)
    elif isinstance(optimizer, flow.optim.Optimizer):
        loop = _EagerLoop(model, optimizer, scheduler)
    else:
        raise SpecError(
            f"optimizer is {_describe(optimizer)}; must be a oneflow.optim.Optimizer or a oneflow.nn.Graph. {_GIVE}"
        )
    if odd := sorted({parameter.name for parameter in loop.plan.parameters} ^ known.keys()):
        raise SpecError(f"model: not the one that the scheduler's plan is for, which differs in {odd[0]!r}.")
    return loop


def _check_known(optimizer: NativeOptimizer, kind: str) -> None:
    """Refuse an optimizer of the user's whose state has no names here.

    Args:
        optimizer: Of the loop.
        kind: The spec's.

    Raises:
        SpecError: It is of another kind than the spec's.
        Unsupported: What it keeps is not known by torch's names.
    """
    if isinstance(optimizer, ComposedOptimizer):
        return
    own = type(optimizer).__name__
    if type(optimizer) not in (flow.optim.SGD, flow.optim.Adagrad):
        raise Unsupported(
            f"optimizer: what {own} keeps is not known here by torch's names. Save its own state_dict() and the "
            "scheduler's, or make the optimizer by ll.compile."
        )
    if own != kind:
        raise SpecError(f"optimizer is {own}, but the spec's is {kind}: what it keeps would be misread. Name it there.")


def _describe(given: object) -> str:
    return "missing" if given is None else f"a {type(given).__name__}"
