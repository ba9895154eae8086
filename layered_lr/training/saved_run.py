"""Checks that a state which was read from files is one that a run has written, whole and without contradictions."""

from __future__ import annotations

import math
from typing import Any

from layered_lr.arrays import Array, Arrays, kind_of
from layered_lr.errors import CheckpointError, LayeredLRError
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.state.training_state import TrainingState

_SERIES = ("losses", "rate_factors", "accuracies", "ema_accuracies")
_TABLES = ("rates", "planned", "grad_norms")


def check_saved_run(state: TrainingState) -> None:
    """Refuse a state that no run can have written; its digests may be right all the same.

    Raises:
        CheckpointError: Something is missing, of another kind, or does not agree with the rest.
    """
    try:
        plan = plan_from_dict(state.about["plan"])
        _check_history(state, plan)
        _check_weights(state, plan)
        _check_reactions(state, plan)
        _check_about(state.about)
    except CheckpointError:
        raise
    except (LayeredLRError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        words = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise CheckpointError(f"it says too little of its run, or what no run says ({words:.160}).") from None


def _check_history(state: TrainingState, plan: Plan) -> None:
    history = state.history
    for name in _SERIES:
        _check_shape(name, history[name], 1)
    for name in _TABLES:
        _check_shape(name, history[name], 2)
        if history[name].shape[1] != len(plan.groups):
            raise ValueError(f"{name} of {history[name].shape[1]} groups, and it has {len(plan.groups)}")
    for prefix in ("best/", "best_average/"):
        for name in [name for name in history if name.startswith(prefix)]:
            _check_as(name.removeprefix(prefix), history[name].shape, {**state.weights, **state.unsaved})
    for name in [name for name in history if name.startswith(("logged/", "watched/"))]:
        _check_shape(name, history[name], 2)
        if history[name].shape[1] != 2:
            raise ValueError(f"{name} of shape {history[name].shape}")
    for name in {"best_at", "better_at"} & history.keys():
        steps = history[name]
        if steps.shape != (1,) or kind_of(steps) not in "iu" or not 0 <= int(steps[0]) <= state.step:
            raise ValueError(f"{name} is {steps!r:.40}, and it has made {state.step} updates")
    for name in ("losses", "rate_factors", "rates", "planned"):
        if len(history[name]) != state.step:
            raise ValueError(f"{name} of {len(history[name])} updates, and it has made {state.step}")
    if len(history["grad_norms"]) > state.step:
        raise ValueError(f"grad_norms of {len(history['grad_norms'])} updates, and it has made {state.step}")


def _check_shape(name: str, array: Array, axes: int) -> None:
    if array.ndim != axes or array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")


def _check_weights(state: TrainingState, plan: Plan) -> None:
    """Parameters have the plan's shapes, averages the weights', and a slot its parameter's or its means'."""
    for parameter in plan.parameters:
        _check_as(parameter.name, parameter.shape, state.weights)
    for name, average in state.ema.items():
        _check_as(name, average.shape, {**state.weights, **state.unsaved})
    for name, slots in state.slots.items():
        for slot, array in slots.items():
            if kind_of(array) not in "fiubc" or not _is_shape_of_slot(array.shape, state.weights[name].shape):
                raise ValueError(f"{slot} of {name!r} is {array.dtype} of shape {array.shape}")
            if slot == "step" and not (array.size == 1 and 0 <= array.item() <= state.step):
                raise ValueError(f"step of {name!r} is {array!r:.40}, and the run has made {state.step} updates")


def _is_shape_of_slot(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """A number, one for each weight, or, as Adafactor has them, one for each row or column of a matrix."""
    fits = len(shape) == len(whole) and all(size in (1, all_of) for size, all_of in zip(shape, whole, strict=True))
    return not shape or fits


def _check_as(name: str, shape: tuple[int, ...], weights: Arrays) -> None:
    if weights[name].shape != shape:
        raise ValueError(f"{name!r} has shape {weights[name].shape} in one place and {shape} in another")


def _check_reactions(state: TrainingState, plan: Plan) -> None:
    """Each group's numbers are those that its schedule has."""
    for there in plan.phase_plans:
        for group in there.groups:
            reaction = group.schedule.start_reaction(group.lr) if group.is_reactive else None
            if reaction is not None and group.name in state.reactions:
                reaction.restore(state.reactions[group.name])  # one of its own, which raises where it cannot


def _check_about(about: Any) -> None:
    counted = about.get("counted", {})
    counts = [about["skipped"], *counted.values(), *about.get("good", [])]
    if not all(isinstance(count, int) and -1 <= count < 1 << 62 for count in counts):
        raise ValueError("a count that is none")
    if about["skipped"] < 0 or not isinstance(about.get("back_at"), int | None):
        raise ValueError("a count that is none")
    if not isinstance(about["rate_factor"], float | int) or not 0 < about["rate_factor"] < math.inf:
        raise ValueError(f"rate_factor {about['rate_factor']!r}")
    if not isinstance(about["options"], dict) or not isinstance(about["versions"], dict):
        raise ValueError("options or versions that are no tables")
    if not isinstance(about["events"], list) or not all(map(_is_event, about["events"])):
        raise ValueError("events that are none")
    if not isinstance(names := about.get("logged", []), list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names of numbers that are none")


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("event"), str)
