"""Going on with a run that was stopped, as it was or changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layered_lr.console import say
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.guesses import explain_guess
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.schedules import Schedule
from layered_lr.spec.spec import Spec
from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.state.training_state import TrainingState, find_differences
from layered_lr.training.grouped_options import Checkpoints
from layered_lr.training.option import old_name
from layered_lr.training.options import RunOptions, merge_tables, options_with_meaning
from layered_lr.training.prepare import Prepared, prepare
from layered_lr.training.recipe import load_recipe
from layered_lr.training.result import Result
from layered_lr.training.run_folder import CHECKPOINTS, RECIPE, RunFolder
from layered_lr.training.train import all_versions, train_prepared

_LENGTH = ("epochs", "max_steps")


def resume_run(path: Any, spec: Spec | None, strict: bool, changes: Mapping[str, Any]) -> Result:
    """See ``layered_lr.resume``.

    Args:
        path: The run's folder.
        spec: Instead of the run's, for what is left of it.
        strict: Refuse what does not fit.
        changes: Arguments of ``run`` to take instead of the run's.
    """
    if not isinstance(path, str | Path):
        raise SpecError(f"resume: path={path!r}: must be the folder of a run, as run(checkpoints=...) makes it.")
    run = Path(path)
    if not (run / RECIPE).is_file():
        raise CheckpointError(
            f"{run}: holds no run ({RECIPE} is missing). Give what was checkpoints (--checkpoint-dir)."
        )
    with RunFolder(run) as folder:
        if not CheckpointFolder(run / CHECKPOINTS).paths():
            return _from_the_start(folder, spec, changes)
        found = CheckpointFolder(run / CHECKPOINTS).read_newest(folder.described().get("run"))
        for damage in found.damaged:
            say(f"{damage} Going back to {found.path.name}.")
        state = found.state
        try:
            before = plan_from_dict(state.about["plan"])
            options = replace(_options(state.about["options"], changes, run), initial_weights=None)
            _check_about(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, LayeredLRError):
                raise
            raise CheckpointError(f"{found.path}: says too little of its run: {error!r}.") from None
        _say_unused(folder, before, changes)
        ready = prepare(before.spec if spec is None else spec, options)
        state = _fitting(state, ready, options, before, strict)
        folder.event("resumed", step=state.step, backend=options.backend, checkpoint=found.path.name)
        return train_prepared(ready, options, folder, state)


def _say_unused(folder: RunFolder, before: Plan, changes: Mapping[str, Any]) -> None:
    """What a user may think is taken, and is not."""
    if "initial_weights" in changes:
        say("initial_weights: not taken, the weights are the checkpoint's.")
    try:
        edited = load_recipe(folder.path / RECIPE).spec != before.spec
    except LayeredLRError:
        edited = True
    if edited:
        say(
            f"{folder.path / RECIPE} is not as it was written: not taken, the spec is the checkpoint's. To change what "
            "is left of a run, give another recipe (--recipe) or spec."
        )


def _from_the_start(folder: RunFolder, spec: Spec | None, changes: Mapping[str, Any]) -> Result:
    """A run that was killed before its first checkpoint."""
    recipe = load_recipe(folder.path / RECIPE)
    options = _options(recipe.run, changes, folder.path)
    given = options.initial_weights is not None and options.initial_weights.source is not None
    if "initial_weights" in folder.described().get("not written", ()) and not given:
        raise SpecError(
            "resume: the run began with initial_weights that cannot be written down, and has no checkpoint; give them "
            "again: resume(..., initial_weights=...)."
        )
    say(f"{folder.path}: there is no checkpoint yet; starting at the beginning.")
    return train_prepared(prepare(recipe.spec if spec is None else spec, options), options, folder)


def _options(said: Mapping[str, Any], changes: Mapping[str, Any], run: Path) -> RunOptions:
    """The run's options, with what is to change."""
    may_change = options_with_meaning("resume")
    for name in changes:
        if name not in may_change:
            hint = old_name(name) or explain_guess("run", name, list(may_change))
            raise SpecError(f"resume: {name} cannot be changed.{hint} What can: {', '.join(may_change)}.")
    changes = {name: value for name, value in changes.items() if name not in _LENGTH or value is not None}
    kept = {name: value for name, value in said.items() if not (name in _LENGTH and set(_LENGTH) & set(changes))}
    for name in ("model", "data"):
        if name not in kept and name not in changes:
            raise SpecError(f"resume: the run's {name} cannot be written down; give it again: resume(..., {name}=...).")
    given = Checkpoints.of(changes.get("checkpoints"))
    if given is not None and given.folder is not None and Path(given.folder) != run:
        raise SpecError(f"resume(checkpoints={str(given.folder)!r}): the run goes on in its own folder, {run}.")
    merged = merge_tables(kept, changes)
    settings = Checkpoints.of(merged.get("checkpoints")) or Checkpoints()
    return RunOptions(**{**merged, "checkpoints": replace(settings, folder=run)})


def _check_about(state: TrainingState) -> None:
    """Refuse what says other things of its run than a run writes down.

    Raises:
        KeyError, TypeError, ValueError: Something is missing, or of another kind.
    """
    for name in ("losses", "rates", "rate_factors"):
        if len(state.history[name]) != state.step:
            raise ValueError(f"{name} of {len(state.history[name])} updates, and it has made {state.step}")
    if any(state.history[name].ndim != 2 for name in ("rates", "grad_norms")):
        raise ValueError("tables that are none")
    dict(state.about["versions"])
    if not state.about["rate_factor"] > 0 or state.about["skipped"] < 0:
        raise ValueError("a count below 0")


def _fitting(state: TrainingState, ready: Prepared, options: RunOptions, before: Plan, strict: bool) -> TrainingState:
    """The state as the run that goes on can take it; says what is not as it was.

    Raises:
        CheckpointError: It does not fit, and ``strict`` is true.
        SpecError: The run has made more updates than it is to have.
    """
    about = state.about
    if ready.plan.total_steps is not None and state.step > ready.plan.total_steps:
        raise SpecError(f"the run has made {state.step} updates; it cannot be made {ready.plan.total_steps} long.")
    if ready.plan.steps_per_epoch != before.steps_per_epoch or about.get("data") != ready.dataset.digest():
        _refuse(strict, "the data are not those that the run was trained with")
    _say_changes(before, ready.plan, about, options)
    own = ready.backend.state(ready.model)
    state = replace(state, reactions=_reactions(state, before, ready.plan))
    if strict:
        try:
            state.check_fits(own)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} strict=False (--no-strict) loads what fits, and starts the rest with new values."
            ) from None
        _check_optimizer(state, ready.plan)
        return state
    return _what_fits(state, own, ready.plan)


def _reactions(state: TrainingState, before: Plan, plan: Plan) -> dict[str, Mapping[str, float]]:
    """What reactive schedules go on from: those that are new, or not what they were, begin anew."""
    last = max(state.step - 1, 0)
    found: dict[str, Mapping[str, float]] = {}
    for name in {group.name for there in plan.phase_plans for group in there.groups if group.is_reactive}:
        was, is_now = _reacting(name, before, last), _reacting(name, plan, last)
        if name in state.reactions and was is not None and was == is_now:
            found[name] = state.reactions[name]
            continue
        group = next(group for group in plan.plan_at(last).groups if group.name == name)
        if (reaction := group.schedule.start_reaction(group.lr)) is not None:
            if name in state.reactions:
                say(f"group {name!r}: its schedule is not what it was, and begins anew at {group.lr:g}.")
            found[name] = reaction.state()
    return found


def _reacting(name: str, plan: Plan, step: int) -> tuple[Schedule, float, int] | None:
    """The schedule of a group when it reacted last, with its rate and what it counts from; None where it never has."""
    for there in reversed(plan.phase_plans[: plan.phase_index(step) + 1]):
        for group in there.groups:
            if group.name == name and group.is_reactive:
                return group.schedule, group.lr, there.since
    return None


def _check_optimizer(state: TrainingState, plan: Plan) -> None:
    try:
        state.check_optimizer(plan.plan_at(max(state.step - 1, 0)).spec.optimizer)
    except CheckpointError as error:
        raise CheckpointError(f"{error} strict=False (--no-strict) starts what the optimizer keeps anew.") from None


def _refuse(strict: bool, what: str) -> None:
    if strict:
        raise CheckpointError(f"{what}. strict=False (--no-strict) goes on nevertheless.")
    say(f"{what}.")


def _say_changes(before: Plan, now: Plan, about: Mapping[str, Any], options: RunOptions) -> None:
    if difference := before.diff(now):
        say(f"from here on the plan is another one:\n{difference}")
    old, new = about.get("versions", {}), all_versions(options.backend)
    if changed := [f"{name} {old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]]:
        say(f"versions are not those of the run before: {', '.join(changed)}; bitwise the same only with the same.")


def _what_fits(state: TrainingState, own: Mapping[str, Any], plan: Plan) -> TrainingState:
    """The part of a state that a model has; everything else starts anew."""
    for difference in find_differences(state.weights, own):
        say(f"{difference}; starts anew.")
    fits = {
        name
        for name, array in own.items()
        if name in state.weights
        and (state.weights[name].shape, state.weights[name].dtype) == (array.shape, array.dtype)
    }
    weights = {name: state.weights[name] if name in fits else array for name, array in own.items()}
    ema = {name: state.ema.get(name, array) if name in fits else array for name, array in own.items()}
    slots: Any = {name: slots for name, slots in state.slots.items() if name in fits}
    optimizer = type(plan.plan_at(max(state.step - 1, 0)).spec.optimizer).__name__
    if state.optimizer != optimizer:
        say(f"the run trained with {state.optimizer}, what is left trains with {optimizer}: its state starts anew.")
        slots = {}
    return replace(state, weights=weights, ema=ema if state.ema else {}, slots=slots, optimizer=optimizer)
