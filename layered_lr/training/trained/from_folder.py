"""Reads what a run has come to from its folder: from its newest checkpoint, its best one, or another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.printed import shown
from layered_lr.registry import check_name
from layered_lr.state.checkpoints import CheckpointFolder, step_of
from layered_lr.state.state_files import read_state
from layered_lr.state.training_state import TrainingState
from layered_lr.training.best_weights import ENDED, Watcher
from layered_lr.training.early_stop import EarlyStop
from layered_lr.training.history import History
from layered_lr.training.in_file import marked
from layered_lr.training.run_folder import CHECKPOINTS, check_holds_a_run, way_on
from layered_lr.training.run_mark import read_mark
from layered_lr.training.saved_run import check_saved_run
from layered_lr.training.trained.model_input import ModelInput


def read_run_folder(path: Path, checkpoint: str | int = "last", *, trust: bool = False) -> dict[str, Any]:
    """Read a run's folder; nothing is written, imported or run.

    Args:
        path: The folder.
        checkpoint: ``"last"`` (where an early stop is to restore the best weights, with those of its best epoch),
            ``"best"`` (by the accuracy that was measured with it), or its number of updates.
        trust: Whether code that the folder names may be imported later.

    Returns:
        The arguments of ``Result``.

    Raises:
        SpecError: ``checkpoint`` is none of these.
        CheckpointError: It holds no run, no such checkpoint, or one that is damaged.
    """
    _check_choice(checkpoint)
    check_holds_a_run(path)
    mark = read_mark(path)
    found = _read_checkpoint(path, checkpoint, None if mark is None else mark.run)
    arguments = _result_arguments(found, trust)
    # Which weights a run has that has ended is no matter of a checkpoint, and older versions have not written it there.
    before = tuple(event for event in arguments["events"] if event["event"] not in ENDED)
    if checkpoint != "last":
        return arguments | {"events": before}
    try:
        return arguments | _best_weights(found, len(arguments["plan"].groups), before)
    except (LayeredLRError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: it says of the early stop what no run says ({error!s:.160}).") from None


def _check_choice(checkpoint: object) -> None:
    is_step = isinstance(checkpoint, int) and not isinstance(checkpoint, bool) and checkpoint >= 0
    if checkpoint not in ("last", "best") and not is_step:
        raise SpecError(f"checkpoint={shown(checkpoint)}: must be 'last', 'best', or a number of updates.")


def _read_checkpoint(path: Path, checkpoint: str | int, run: str | None) -> TrainingState:
    folder = CheckpointFolder(path / CHECKPOINTS)
    paths = folder.paths()
    if not paths:
        raise CheckpointError(
            f"{path}: the run has no weights: it was stopped before its first checkpoint, or {CHECKPOINTS} is missing. "
            f"Go on with it: {way_on(path)}"
        )
    if checkpoint == "last":
        newest = folder.read_newest(run, check_saved_run)
        if newest.damaged:
            step = newest.state.step
            raise CheckpointError(
                f"{newest.damaged[0]} To take the checkpoint before it: checkpoint={step} (--checkpoint {step})."
            )
        return newest.state
    if checkpoint == "best":
        best = folder.find_best()
        if best is None:
            raise CheckpointError(f"{path}: no checkpoint was rated, so none is the best: take the last.")
    else:
        best = folder.path_of(int(checkpoint))
        if best not in paths:
            steps = ", ".join(str(step_of(each)) for each in paths)
            raise CheckpointError(f"{path}: there is no checkpoint after {checkpoint} updates. There are: {steps}.")
    state = read_state(best)
    if run is not None and state.about.get("run") != run:
        raise CheckpointError(f"{best}: its state is of another run.")
    try:
        check_saved_run(state)
    except CheckpointError as error:
        raise CheckpointError(f"{best}: {error}") from None
    return state


def _result_arguments(state: TrainingState, trust: bool) -> dict[str, Any]:
    about = state.about
    options = dict(about["options"]) if trust else marked(dict(about["options"]))
    backend = str(options.get("backend", "torch-eager"))
    check_name(backend)
    plan = plan_from_dict(about["plan"], trust=trust)
    history = state.history
    norms = history["grad_norms"]
    logged = History.of(history, len(plan.groups))
    logged.sort_logged(about.get("logged", ()))
    return {
        "backend": backend,
        "plan": plan,
        "losses": history["losses"],
        "rates": _by_group(plan, history["rates"]),
        "accuracies": history["accuracies"],
        "ema_accuracies": history["ema_accuracies"],
        "weights": dict(state.weights),
        "ema_weights": {name: array for name, array in state.ema.items() if name in state.weights},
        "unsaved": dict(state.unsaved),
        "lowering": plan.lowering(backend),
        "seconds_per_step": float("nan"),
        "first_step_seconds": float("nan"),
        "versions": {str(name): str(version) for name, version in about["versions"].items()},
        "options": options,
        "grad_norms": np.hypot.reduce(norms, axis=1),
        "group_grad_norms": _by_group(plan, norms),
        "planned_rates": _by_group(plan, history["planned"]),
        "events": tuple(about["events"]),
        "logged": {name: rows.numbers() for name, rows in logged.logged.items()},
        "model_input": _read_input(about),
    }


def _best_weights(state: TrainingState, groups: int, events: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The weights of the best epoch, as the run's own result has them; empty where these are the last ones.

    Args:
        state: Of the newest checkpoint.
        groups: How many the plan has.
        events: Before the end.
    """
    settings = EarlyStop.of(state.about["options"].get("early_stop"))
    history = History.of(state.history, groups)
    if settings is None or not Watcher(settings).restores(history, state.step):
        return {}
    said = {"events": (*events, *Watcher(settings).events(history, state.step))}
    average = {name: array for name, array in history.best_average.items() if name in state.weights}
    return {"weights": history.best_weights} | said | ({"ema_weights": average} if average else {})


def _read_input(about: Any) -> ModelInput | None:
    if "input" not in about:
        return None
    try:
        return ModelInput.from_dict({**about["input"], "digest": about.get("data", "")})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"it says of the model's input what no run says ({error!s:.160}).") from None


def _by_group(plan: Plan, table: Any) -> dict[str, Any]:
    return dict(zip((group.name for group in plan.groups), table.T, strict=True))
