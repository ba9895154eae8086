"""Continues a run that was stopped, with the same settings or with other ones."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layered_lr.backend.base import Backend
from layered_lr.backend.processes import ALONE, Processes
from layered_lr.console import say
from layered_lr.data.sources import needs_download
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import as_path, open_plain
from layered_lr.guesses import explain_guess
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.printed import shown
from layered_lr.schedules import Schedule
from layered_lr.spec.spec import Spec
from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.state.training_state import TrainingState, find_differences
from layered_lr.training.alike import check_alike
from layered_lr.training.code_digest import digest_arrays
from layered_lr.training.followers import FollowedFolder
from layered_lr.training.grouped_options import Checkpoints
from layered_lr.training.in_file import marked, names_code, unmarked
from layered_lr.training.loop import Loop
from layered_lr.training.loss_function import is_lost
from layered_lr.training.many_processes import find_launch, joined
from layered_lr.training.option import old_name
from layered_lr.training.options import RunOptions, merge_tables, options_with_meaning
from layered_lr.training.places import check_places
from layered_lr.training.prepare import Prepared
from layered_lr.training.recipe import load_recipe
from layered_lr.training.result import Result
from layered_lr.training.run_folder import CHECKPOINTS, METRICS, RECIPE, RunFolder, check_holds_a_run
from layered_lr.training.saved_run import check_saved_run
from layered_lr.training.train import all_versions, open_loop, prepare_together, train_prepared
from layered_lr.yes_or_no import check_yes_or_no

_LENGTH = ("epochs", "max_steps")


def resume_run(path: Any, spec: Spec | None, strict: bool, trust: bool, changes: Mapping[str, Any]) -> Result:
    """See ``layered_lr.resume``.

    Args:
        path: The run's folder.
        spec: Instead of the run's, for what is left of it.
        strict: Refuse what does not fit.
        trust: Import what the folder names.
        changes: Arguments of ``run`` to take instead of the run's.
    """
    for name, value in (("strict", strict), ("trust", trust)):
        check_yes_or_no("resume", name, value)
    if not isinstance(path, str | Path):
        raise SpecError(f"resume: path={shown(path)}: must be the folder of a run, as run(checkpoints=...) makes it.")
    run = as_path("resume: path", path)
    check_holds_a_run(run)
    if find_launch() is None:
        with RunFolder(run) as folder:
            return _go_on(folder, run, spec, strict, trust, changes, ALONE, None)
    mark = FollowedFolder(run).mark
    options = _options(mark.options or {}, changes, run, trust)
    with joined(options, mark.spec if spec is None else spec) as (processes, backend):
        opened = processes.agree_first(lambda: RunFolder(run)) or FollowedFolder(run)
        with contextlib.closing(opened):
            return _go_on(opened, run, spec, strict, trust, changes, processes, backend)


def go_on_after_restart(spec: Spec, options: RunOptions) -> Result:
    """Go on with a run from its newest checkpoint, after a launcher has started all processes again.

    Args:
        spec: Of the run.
        options: Of the run, with a folder that holds it.
    """
    assert options.checkpoints is not None
    given = ("model", "data", "progress", "callbacks", "log", "save")
    changes = {name: getattr(options, name) for name in given}
    return resume_run(options.checkpoints.folder, spec, True, True, changes)


def _go_on(
    folder: RunFolder | FollowedFolder,
    run: Path,
    spec: Spec | None,
    strict: bool,
    trust: bool,
    changes: Mapping[str, Any],
    processes: Processes,
    backend: Backend | None,
) -> Result:
    checkpoints = folder.checkpoints(1, False)
    if not checkpoints.paths():
        return _from_the_start(folder, run, spec, trust, changes, processes, backend)
    checkpoints.maps_files = processes.are_many  # each reads all of it, and may hold a part of the model alone
    name = folder.mark.run if folder.mark_is_whole else folder.described().get("run")
    found = checkpoints.read_newest(name, check_saved_run)
    said = _said(folder, found.state)
    _check_augment(folder.mark.unwritten, changes)
    options = replace(_options(said["options"], changes, run, trust), initial_weights=None)
    spec_now = Spec.from_dict(said["spec"], trust=trust) if spec is None else spec
    before = _plan_of(found.state, trust)
    _say_unused(folder, before, changes)
    ready = prepare_together(processes, spec_now, options, backend, goes_on=True)
    loop, state = _open_newest(checkpoints, name, ready, options, trust, strict)
    check_same_checkpoint(processes, name, state)
    folder.event("resumed", step=state.step, backend=options.backend, checkpoint=f"step-{state.step:08d}")
    return train_prepared(ready, options, folder, state, loop)


def check_same_checkpoint(processes: Processes, run: str | None, state: TrainingState) -> None:
    """Refuse processes that go on from other checkpoints, as where each machine has a folder of its own.

    Raises:
        SpecError: They do; the process that differs is named.
    """
    if processes.are_many:
        facts = {"run": run, "step": state.step, "weights": digest_arrays(state.weights)}
        check_alike(processes, {"checkpoint": facts})


def _said(folder: RunFolder | FollowedFolder, state: TrainingState) -> dict[str, Any]:
    """Spec and options of what is left of the run: the mark has them since the run was last begun or changed."""
    mark = folder.mark
    if mark.spec is not None and mark.run == state.about.get("run", mark.run):
        return {"spec": mark.spec, "options": mark.options}
    return {"spec": state.about["plan"]["spec"], "options": state.about["options"]}


def _plan_of(state: TrainingState, trust: bool) -> Plan:
    return plan_from_dict(state.about["plan"], trust=trust)


def _open_newest(
    checkpoints: CheckpointFolder, run: str | None, ready: Prepared, options: RunOptions, trust: bool, strict: bool
) -> tuple[Loop, TrainingState]:
    """Open the loop at the newest checkpoint that can be read and that the framework takes.

    Raises:
        CheckpointError: None can be taken; the message is of the newest that can be read.
    """
    damaged: list[str] = []
    refused: list[CheckpointError] = []
    for path, found in checkpoints.read_all(run, check_saved_run):
        if not isinstance(found, TrainingState):
            damaged.append(str(found))
            continue
        try:
            before = _plan_of(found, trust)
            state = _fitting(found, ready, before, strict, say)
            earlier = _earlier(checkpoints, run, found, options, functools.partial(_fitted, ready, before, strict))
            loop = open_loop(ready, options, options.listeners, state, good=earlier)
        except CheckpointError as error:
            refused.append(error)
            damaged.append(f"{path}: {error}")
            continue
        for damage in damaged:
            say(f"{damage} Going back to {path.name}.")
        _say_changes(before, ready.plan, state.about, options, trust)
        return loop, state
    raise refused[0] if refused else CheckpointError(f"{checkpoints.folder}: none can be read: {damaged[0]}")


def _fitted(ready: Prepared, before: Plan, strict: bool, state: TrainingState) -> TrainingState:
    return _fitting(state, ready, before, strict, lambda words: None)


def _earlier(
    checkpoints: CheckpointFolder,
    run: str | None,
    state: TrainingState,
    options: RunOptions,
    fit: Callable[[TrainingState], TrainingState],
) -> list[TrainingState]:
    """The state before this one that a rollback may go back to, where there is one.

    The checkpoint says which one the run had. Where that one is gone, or where a checkpoint of an older version says
    nothing, it is the newest that is older.
    """
    steps = state.about.get("good", [])[:-1]
    if options.divergence.action != "rollback" or ("good" in state.about and not steps):
        return []
    wanted = checkpoints.path_of(steps[-1]) if steps else None
    older = [(path, found) for path, found in checkpoints.read_all(run, check_saved_run) if _is_before(found, state)]
    for _, found in sorted(older, key=lambda each: each[0] != wanted):
        if isinstance(found, TrainingState):
            try:
                return [fit(found)]
            except CheckpointError:
                continue
    return []


def _is_before(found: TrainingState | CheckpointError, state: TrainingState) -> bool:
    return isinstance(found, TrainingState) and found.step < state.step


def _say_unused(folder: RunFolder | FollowedFolder, before: Plan, changes: Mapping[str, Any]) -> None:
    """What a user may think is taken, and is not."""
    if "initial_weights" in changes:
        say("initial_weights: not taken, the weights are the checkpoint's.")
    written = before.spec if folder.mark.spec is None else Spec.from_dict(folder.mark.spec)
    try:
        edited = load_recipe(folder.path / RECIPE).spec != written
    except LayeredLRError:
        edited = True
    if edited:
        say(
            f"{folder.path / RECIPE} is not as it was written: not taken, the spec is the run's own. To change what "
            "is left of a run, give another recipe (--recipe) or spec."
        )


def _from_the_start(
    folder: RunFolder | FollowedFolder,
    run: Path,
    spec: Spec | None,
    trust: bool,
    changes: Mapping[str, Any],
    processes: Processes,
    backend: Backend | None,
) -> Result:
    """A run that was killed before its first checkpoint."""
    if folder.mark.has_checkpoints or (folder.mark.spec is None and _has_measured(folder.path)):
        raise CheckpointError(
            f"{folder.path}: the run has written checkpoints, and there are none in {CHECKPOINTS}. Bring them back "
            "(is the folder mounted?), or begin a new run in another folder."
        )
    if folder.mark.spec is None:
        recipe = load_recipe(folder.path / RECIPE, trust=trust)
        said, own, unwritten = recipe.run, recipe.spec, folder.described().get("not written", ())
    else:
        mark = folder.mark
        said, own, unwritten = mark.options, Spec.from_dict(mark.spec or {}, trust=trust), mark.unwritten
    _check_augment(unwritten, changes)
    options = _options(said, changes, run, trust)
    given = options.initial_weights is not None and options.initial_weights.source is not None
    if "initial_weights" in unwritten and not given:
        raise SpecError(
            "resume: the run began with initial_weights that cannot be written down, and has no checkpoint; give them "
            "again: resume(..., initial_weights=...)."
        )
    say(f"{folder.path}: there is no checkpoint yet; starting at the beginning.")
    ready = prepare_together(processes, own if spec is None else spec, options, backend)
    return train_prepared(ready, options, folder)


def _check_augment(unwritten: Iterable[str], changes: Mapping[str, Any]) -> None:
    """Refuse to go on without the function that has augmented the images.

    Raises:
        SpecError: The folder cannot name it, and it is not given again.
    """
    if "augment" in unwritten and "augment" not in changes:
        raise SpecError("resume: the run's augment cannot be written down; give it again: resume(..., augment=...).")


def _has_measured(path: Path) -> bool:
    """Whether the folder of a run of an older version, which says nothing of its checkpoints, has measured numbers."""
    try:
        return (path / METRICS).stat().st_size > 0 and b"\n" in _rows_after_header(path / METRICS)
    except OSError:
        return False


def _rows_after_header(file: Path) -> bytes:
    with open_plain(file) as opened:
        opened.readline(1 << 20)
        return opened.read(1 << 12)


def _options(said: Mapping[str, Any], changes: Mapping[str, Any], run: Path, trust: bool) -> RunOptions:
    """The run's options, with what is to change; no place to write to is taken from the folder.

    Raises:
        CheckpointError: What the folder says is not what a run says.
        SpecError: A change that cannot be, or code in the folder that nobody has said is to be trusted.
    """
    said = {name: value for name, value in said.items() if name != "save"}
    may_change = options_with_meaning("resume")
    for name in changes:
        if name not in may_change:
            hint = old_name(name) or explain_guess("run", name, list(may_change))
            raise SpecError(f"resume: {name} cannot be changed.{hint} What can: {', '.join(may_change)}.")
    changes = {name: value for name, value in changes.items() if name not in _LENGTH or value is not None}
    said = said if trust else marked(dict(said))
    kept = {name: value for name, value in said.items() if not (name in _LENGTH and set(_LENGTH) & set(changes))}
    has_lost_loss = is_lost(kept.get("loss"))
    if has_lost_loss:
        del kept["loss"]
    for name in ("model", "data", *["loss"] * has_lost_loss):
        if name not in kept and name not in changes:
            raise SpecError(f"resume: the run's {name} cannot be written down; give it again: resume(..., {name}=...).")
    given = Checkpoints.of(changes.get("checkpoints"))
    if given is not None and given.folder is not None and Path(given.folder).absolute() != run.absolute():
        raise SpecError(f"resume(checkpoints={str(given.folder)!r}): the run goes on in its own folder, {run}.")
    kept["checkpoints"] = _without_folder(kept.get("checkpoints"))
    _check_data_root(kept, changes)
    try:
        RunOptions(**unmarked(kept))
    except LayeredLRError as error:
        raise CheckpointError(f"{run}: says something of its run that cannot be: {error}") from None
    merged = merge_tables(kept, changes)
    settings = Checkpoints.of(merged.get("checkpoints")) or Checkpoints()
    options = RunOptions(**{**merged, "checkpoints": replace(settings, folder=run)})
    check_places(options)
    return options


def _without_folder(checkpoints: Any) -> Any:
    """The settings of checkpoints without the folder: the run goes on in the folder that was given."""
    if isinstance(checkpoints, Mapping):
        return {name: value for name, value in checkpoints.items() if name != "folder"}
    return None if isinstance(checkpoints, str) else checkpoints


def _check_data_root(said: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse to download to a place that the folder names.

    Raises:
        SpecError: The data are not there.
    """
    root = said.get("data_root")
    data = changes.get("data", said.get("data"))
    if root is not None and "data_root" not in changes and needs_download(data, root):
        raise SpecError(
            f"resume: {data} is not in data_root={str(root)!r}, which the run's folder names; nothing is "
            "downloaded to a place that a folder names. Give it again: resume(..., data_root=...)."
        )


def _fitting(
    state: TrainingState, ready: Prepared, before: Plan, strict: bool, tell: Callable[[str], None]
) -> TrainingState:
    """The state as the run that goes on can take it; says what is not as it was.

    Raises:
        CheckpointError: It does not fit, and ``strict`` is true.
        SpecError: The run has made more updates than it is to have.
    """
    if ready.plan.total_steps is not None and state.step > ready.plan.total_steps:
        raise SpecError(f"the run has made {state.step} updates; it cannot be made {ready.plan.total_steps} long.")
    if ready.plan.steps_per_epoch != before.steps_per_epoch or state.about.get("data") != ready.dataset.digest():
        what = "the data are not those that the run was trained with"
        if strict:
            raise CheckpointError(f"{what}. strict=False (--no-strict) goes on nevertheless.")
        tell(f"{what}.")
    own = ready.backend.state(ready.model)
    state = replace(state, reactions=_reactions(state, before, ready.plan, tell))
    if strict:
        try:
            state.check_fits(own)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} strict=False (--no-strict) loads what fits, and starts the rest with new values."
            ) from None
        _check_optimizer(state, ready.plan)
        return state
    return _what_fits(state, own, ready.plan, tell)


def _reactions(
    state: TrainingState, before: Plan, plan: Plan, tell: Callable[[str], None]
) -> dict[str, Mapping[str, float]]:
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
                tell(f"group {name!r}: its schedule is another one now, and begins at {group.lr:g}.")
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
        state.check_optimizer(plan.plan_at(max(state.step - 1, 0)).kinds)
    except CheckpointError as error:
        raise CheckpointError(f"{error} strict=False (--no-strict) starts without the optimizer's state.") from None


def _say_changes(before: Plan, now: Plan, about: Mapping[str, Any], options: RunOptions, trust: bool) -> None:
    if not trust and names_code({}, before.spec.to_dict()):
        say("the earlier plan names functions, which are not imported: so the differences to it are not shown.")
    elif difference := before.diff(now):
        say(f"from here on the plan is another one:\n{difference}")
    old, new = about.get("versions", {}), all_versions(options.backend)
    if changed := [f"{name} {old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]]:
        say(f"versions have changed since the run began: {', '.join(changed)}. The result may differ in the last bits.")


def _what_fits(state: TrainingState, own: Mapping[str, Any], plan: Plan, tell: Callable[[str], None]) -> TrainingState:
    """The part of a state that a model has; everything else is initialised again."""
    for difference in find_differences(state.weights, own):
        tell(f"{difference}; it is initialised again.")
    fits = {
        name
        for name, array in own.items()
        if name in state.weights
        and (state.weights[name].shape, state.weights[name].dtype) == (array.shape, array.dtype)
    }
    weights = {name: state.weights[name] if name in fits else array for name, array in own.items()}
    ema = {name: state.ema.get(name, array) if name in fits else array for name, array in own.items()}
    slots: Any = {name: slots for name, slots in state.slots.items() if name in fits}
    here = plan.plan_at(max(state.step - 1, 0))
    switched = {name: (state.kind_of(name), here.kinds.get(name)) for name in state.slots}
    switched = {name: (old, new) for name, (old, new) in switched.items() if new is not None and old != new}
    for old, new in dict.fromkeys(switched.values()):
        tell(f"the run trained with {old}; from now on {new} trains, and starts without state.")
    slots = {name: own for name, own in slots.items() if name not in switched}
    fitting = replace(state, weights=weights, ema=ema if state.ema else {}, slots=slots)
    return fitting.with_kinds(type(here.spec.optimizer).__name__, here.kinds)
