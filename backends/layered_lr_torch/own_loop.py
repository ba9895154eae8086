"""The state of a loop of the user's own, by parameter name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from layered_lr.errors import CheckpointError, SpecError
from layered_lr.models.nn_modules import parameters_of
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import models, random_state
from layered_lr_torch.optimizer import PlanScheduler
from layered_lr_torch.slots import export_slots, import_slots, new_slots


def export_loop(model: torch.nn.Module, optimizer: Any, scheduler: Any) -> TrainingState:
    """See ``layered_lr.backend.base.Backend.export_loop``."""
    objects = _objects(model, optimizer, scheduler)
    return TrainingState(
        step=0 if scheduler is None else scheduler.last_epoch,
        optimizer=type(optimizer).__name__,
        weights=models.state(model),
        slots=export_slots(optimizer, objects),
        reactions={} if scheduler is None else scheduler.reactions(),
        random=random_state.states(_device(model)),
    )


def import_loop(state: TrainingState, model: torch.nn.Module, optimizer: Any, scheduler: Any) -> None:
    """See ``layered_lr.backend.base.Backend.import_loop``."""
    objects = _objects(model, optimizer, scheduler)
    own = models.state(model)
    state.check_finite()
    if state.weights:
        state.check_fits(own)
    if any(state.slots.values()) and state.optimizer not in ("", type(optimizer).__name__):
        raise CheckpointError(f"the state is of {state.optimizer}, the optimizer is {type(optimizer).__name__}.")
    given = replace(state, weights=state.weights or own)
    given.check_slots(new_slots(optimizer, objects, _waiting(scheduler)))
    if scheduler is not None:
        scheduler.check_reactions(state)
        scheduler.go_to(state.step, state.reactions)
    models.load(model, state.weights)
    import_slots(optimizer, objects, state.slots)
    random_state.restore(state.random, _device(model))


def _waiting(scheduler: Any) -> frozenset[str]:
    """Parameters that are frozen now: their slots may be those of other options."""
    return frozenset() if scheduler is None else scheduler.live.plan.frozen


def _objects(model: torch.nn.Module, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SpecError(f"optimizer is a {type(optimizer).__name__}; must be a torch.optim.Optimizer of the model.")
    if scheduler is not None and not isinstance(scheduler, PlanScheduler):
        raise SpecError(
            f"scheduler is a {type(scheduler).__name__}; must be the one that ll.compile gave, or None (save and "
            "load it by its own state_dict then)."
        )
    objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    known = {id(tensor) for tensor in objects.values()}
    trained = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if foreign := [tensor for tensor in trained if id(tensor) not in known]:
        raise SpecError(f"optimizer: {len(foreign)} of its {len(trained)} parameters are not the model's.")
    return {name: objects[name] for name in objects if any(tensor is objects[name] for tensor in trained)}


def _device(model: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
