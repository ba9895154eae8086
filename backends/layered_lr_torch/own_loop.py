"""The state of a loop of the user's own, exported and imported by parameter name."""

from __future__ import annotations

from dataclasses import replace

import torch

from layered_lr.errors import CheckpointError, SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.single_optimizer import enter_phase
from layered_lr.state.training_state import TrainingState, find_masks, find_unusual
from layered_lr_torch import models, random_state
from layered_lr_torch.mixed_optimizer import MixedOptimizer
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.slots import export_slots, find_class, import_slots, new_slots
from layered_lr_torch.torch_types import Module, Parameters


def export_loop(model: Module, optimizer: torch.optim.Optimizer, scheduler: PlanScheduler | None) -> TrainingState:
    """Copy the state of a loop of the user's own.

    Args:
        model: What the loop trains.
        optimizer: Any of torch's optimizers over the model's parameters.
        scheduler: What ``layered_lr.compile`` returned, or None: the state then has step 0 and no reactions.

    Raises:
        SpecError: One of these is of another kind, or the optimizer has parameters that are not the model's.
        Unsupported: The optimizer is LBFGS.
    """
    parameters = _find_parameters(model, optimizer, scheduler)
    _check_named(optimizer)
    models.check_savable(model)
    weights = models.copy_state(model)
    usual = type(optimizer).__name__ if not isinstance(optimizer, MixedOptimizer) else optimizer.usual_kind
    return TrainingState(
        step=0 if scheduler is None else scheduler.last_epoch,
        optimizer=usual,
        kinds=find_unusual(usual, _list_kinds(optimizer, parameters)),
        weights=weights,
        slots=export_slots(optimizer, parameters),
        reactions={} if scheduler is None else scheduler.reactions(),
        random=random_state.read_states(_find_device(model)),
        unsaved=models.copy_unsaved(model),
        masks=find_masks(weights, [name for parameter, _ in parameters_of(model) for name in parameter.names]),
    )


def import_loop(
    state: TrainingState, model: Module, optimizer: torch.optim.Optimizer, scheduler: PlanScheduler | None
) -> None:
    """Let a loop of the user's own go on from a state.

    Args:
        state: From any backend. Without weights it leaves the model as it is.
        model: As in ``export_loop``.
        optimizer: As in ``export_loop``. Parameters without slots in the state begin with new ones.
        scheduler: As in ``export_loop``.

    Raises:
        SpecError: As in ``export_loop``.
        CheckpointError: The state does not fit the model, the optimizer or the scheduler.
    """
    parameters = _find_parameters(model, optimizer, scheduler)
    _check_named(optimizer)
    own = models.copy_state(model)
    state.check_finite()
    if state.weights:
        state.check_fits(own)
    kinds = _list_kinds(optimizer, parameters)
    named = [name for name, slots in state.slots.items() if slots and name in kinds and state.kind_of(name)]
    if odd := [name for name in named if state.kind_of(name) != kinds[name]]:
        raise CheckpointError(
            f"the state is of {state.kind_of(odd[0])}, the optimizer is {kinds[odd[0]]} (of {odd[0]!r})."
        )
    if scheduler is None:
        fitting = new_slots(optimizer, parameters)
    else:
        frozen, groups = scheduler.plan.plan_at(state.step).frozen, scheduler.param_groups_at(state.step)
        fitting = new_slots(optimizer, parameters, frozen, groups)
        state = enter_phase(scheduler.plan, state, fitting)
    replace(state, weights=state.weights or own).check_slots(fitting)
    if scheduler is not None:
        scheduler.check_reactions(state)
    random_state.restore_states(state.random, _find_device(model))  # the first one: it may refuse
    if scheduler is not None:
        scheduler.go_to(state.step, state.reactions)
    models.load_state(model, state.weights)
    models.load_unsaved(model, state.unsaved)
    import_slots(optimizer, parameters, state.slots)


def _list_kinds(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, str]:
    """The name of each parameter's optimizer, by the parameter."""
    names = {id(tensor): name for name, tensor in parameters.items()}
    return {
        names[id(tensor)]: find_class(optimizer, group).__name__
        for group in optimizer.param_groups
        for tensor in group["params"]
    }


def _check_named(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose state is of all parameters together.

    Raises:
        Unsupported: It is LBFGS.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise Unsupported(
            "save_state and load_state go by the names of parameters, and the state of LBFGS belongs to all of them "
            "together. Use optimizer.state_dict() and scheduler.state_dict()."
        )


def _find_parameters(model: Module, optimizer: object, scheduler: object) -> Parameters:
    """The parameters that the optimizer trains, by name, if all three go together."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SpecError(f"optimizer is a {type(optimizer).__name__}; must be a torch.optim.Optimizer of the model.")
    if scheduler is not None and not isinstance(scheduler, PlanScheduler):
        raise SpecError(
            f"scheduler is a {type(scheduler).__name__}; must be the one that ll.compile gave, or None (save and "
            "load it by its own state_dict then)."
        )
    parameters: Parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    known = {id(tensor) for tensor in parameters.values()}
    trained = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if foreign := [tensor for tensor in trained if id(tensor) not in known]:
        raise SpecError(
            f"optimizer: {len(foreign)} of its {len(trained)} parameters are not the model's. Give the model that the "
            "optimizer was made for."
        )
    ids = {id(tensor) for tensor in trained}
    return {name: tensor for name, tensor in parameters.items() if id(tensor) in ids}


def _find_device(model: Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
