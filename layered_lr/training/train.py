"""Makes a whole run: from a spec, a backend, a model and data to a ``Result``."""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.base import Backend
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.processes import Processes
from layered_lr.backend.session import Session
from layered_lr.console import say
from layered_lr.data.stored_images import StoredImages
from layered_lr.errors import BackendUnavailable, CheckpointError, DataError, SpecError, ToolUnavailable, Unsupported
from layered_lr.losses import FunctionLoss
from layered_lr.models.nn_modules import set_trainable, trainable_parameters
from layered_lr.models.zoo import is_catalogued
from layered_lr.outputs import clear_unfinished
from layered_lr.plans.plan import Plan
from layered_lr.plans.unused_rates import describe_unused_rates
from layered_lr.printed import shown
from layered_lr.registry import TABLE, check_name, find_versions
from layered_lr.spec.spec import Spec
from layered_lr.state.training_state import TrainingState
from layered_lr.strict_json import json_text
from layered_lr.training.alike import check_alike, facts_alike
from layered_lr.training.batch_shapes import check_sizes
from layered_lr.training.best_weights import Watcher
from layered_lr.training.callback import Callback
from layered_lr.training.checks import check_answer, check_finite
from layered_lr.training.divergence import Guard
from layered_lr.training.dry_run import (
    FewBatches,
    dry_options,
    refuse_unusable,
    say_what_was_done,
    try_other_sizes,
    write_and_read,
)
from layered_lr.training.evaluation import MeasuredLoss
from layered_lr.training.followers import FollowedFolder, FollowedLog
from layered_lr.training.history import History
from layered_lr.training.in_file import command_to_go_on
from layered_lr.training.loop import Loop
from layered_lr.training.loss_function import LossFunction
from layered_lr.training.many_processes import check_single_process, joined
from layered_lr.training.options import RunOptions
from layered_lr.training.places import check_places
from layered_lr.training.prepare import Prepared, prepare
from layered_lr.training.result import Result
from layered_lr.training.run_folder import RunFolder, held_error
from layered_lr.training.run_log import RunLog
from layered_lr.version import __version__


def train(spec: Spec, options: RunOptions) -> Result:
    """Make a run, from its spec and options to its result: what ``layered_lr.run`` does.

    Args:
        spec: What to train with.
        options: How.
    """
    check_name(options.backend)
    check_places(options)
    if options.dry_run:
        check_single_process()
    with joined(options, spec) as (processes, backend):
        return _train(spec, options, processes, backend)


def _train(spec: Spec, options: RunOptions, processes: Processes, backend: Backend | None) -> Result:
    if not isinstance(options.model, str) and options.dropout is not None:
        say(f"dropout={shown(options.dropout)}: not used, it is for models known by name. Build yours with it.")
    if options.save is not None:
        clear_unfinished(options.save.parent)
    if options.dry_run:
        return _try_run(spec, options)
    if options.checkpoints is None or options.checkpoints.folder is None:
        if options.checkpoints is not None:  # as the recipe in a run's folder has it
            say("checkpoints: no folder is given, so none are written.")
        return train_prepared(prepare_together(processes, spec, options, backend), options)
    spec.to_dict()  # a lambda in it could not be written down
    path = Path(options.checkpoints.folder)
    folder = processes.agree_first(lambda: _open_new(path)) or FollowedFolder(path)
    loop = None
    with contextlib.closing(folder):
        try:
            ready = prepare_together(processes, spec, options, backend)
            loop = open_loop(ready, options, options.listeners)
            return train_prepared(ready, options, folder, loop=loop)
        except BaseException as error:
            if loop is None or loop.run_log is None or (loop.step == 0 and isinstance(error, _REFUSALS)):
                folder.withdraw()
            raise


_REFUSALS = (SpecError, DataError, BackendUnavailable, ToolUnavailable, Unsupported)
"""The errors of what was asked for; after the others, such as a loss of NaN, the folder says what has happened."""


def _open_new(path: Path) -> RunFolder:
    """Open the folder of a new run.

    Raises:
        CheckpointError: It holds a run already, or cannot be used.
    """
    folder = RunFolder(path)
    if folder.holds_a_run:
        folder.close()
        raise held_error(path)
    return folder


def prepare_together(
    processes: Processes, spec: Spec, options: RunOptions, backend: Backend | None, goes_on: bool = False
) -> Prepared:
    """Prepare a run in all its processes, and find whether they are about to train the same one.

    Raises:
        SpecError: They are not; the process that differs is named. Also what ``prepare`` raises, in one of them.
    """
    ready = processes.agree(lambda: prepare(spec, options, backend=backend, goes_on=goes_on))
    if processes.are_many:
        facts = processes.agree(lambda: facts_alike(ready, options))
        check_alike(processes, {"version": all_versions(options.backend), **facts})
        ready.batches.share = processes.share
        if options.shard:
            ready.backend.shard(ready.plan, ready.model)
    elif options.shard:
        say("shard=True: there is one process, which holds everything.")
    return ready


def _try_run(spec: Spec, options: RunOptions) -> Result:
    """Make one update, evaluate one batch, and write and read a checkpoint; keep nothing but the result.

    Raises:
        CheckpointError: The run's folder holds a run already, or the state cannot be written as the run would.
    """
    asked = options.checkpoints is not None and options.checkpoints.folder is not None
    if asked:
        spec.to_dict()  # a lambda in it could not be written down
        refuse_unusable(Path(options.checkpoints.folder))  # type: ignore[union-attr, arg-type]  # asked
    with tempfile.TemporaryDirectory() as place:
        tried = dry_options(options, Path(place))
        ready = prepare(spec, tried)
        ready = ready._replace(batches=FewBatches(ready.batches))
        loop = open_loop(ready, tried, tried.callbacks)
        start = loop.session.export_state() if ready.batches.sizes else None
        loop.is_trial = True
        loop.events.append({"event": "dry run", "step": 0, "updates": ready.plan.total_steps})
        with contextlib.ExitStack() as opened:
            folder = opened.enter_context(RunFolder(Path(place) / "run")) if asked else None
            result = train_prepared(ready, tried, folder, loop=loop)
        written = write_and_read(loop.export_state())
        if start is not None:
            try_other_sizes(loop.session, ready.batches, start)
    if asked and isinstance(written, str):
        raise CheckpointError(f"a checkpoint of this run cannot be written: {written}")
    say_what_was_done(result, written, min(len(ready.dataset.y_test), options.batch_size))
    return result


def train_prepared(
    ready: Prepared,
    options: RunOptions,
    folder: RunFolder | FollowedFolder | None = None,
    state: TrainingState | None = None,
    loop: Loop | None = None,
) -> Result:
    """Train from the start, or from where a state stands, to the end.

    Args:
        ready: From ``prepare``.
        options: Of the run.
        folder: Where checkpoints go, open.
        state: To go on from; it fits.
        loop: Opened at the state.
    """
    save = None if options.save is None else options.save.absolute()  # a callback may change the current folder
    for unused in describe_unused_rates(ready.plan):
        say(unused)
    if loop is None:
        loop = open_loop(ready, options, options.listeners, state)
    changed = False
    if folder is not None or options.divergence.action != "stop":
        loop.session.check_savable()
    if folder is not None:
        gone = {} if state is None else state.about
        about = {"run": gone.get("run", folder.mark.run), **run_about(ready, options)}
        changed = any(json.loads(json_text(about[name])) != gone.get(name) for name in ("plan", "options"))
        step = None if state is None else state.step
        if isinstance(folder, FollowedFolder):
            way_on = command_to_go_on(folder.said, about["options"], ready.plan.spec.to_dict())
            loop.run_log = FollowedLog(folder.path, way_on, step or 0)
        else:
            loop.run_log = run_log = RunLog(folder, ready.plan, options, about, step, changed)
            run_log.begin(loop.history, is_new=list(gone.get("groups", ())) != list(about["groups"]))
            if state is not None:
                run_log.remove_old([earlier.step for earlier in loop.earlier])
        _say_what_cannot_be_restored(loop.session)
    loop.run(checkpoint_first=changed)
    result = _result(ready, options, loop)
    if loop.run_log is not None:
        loop.run_log.report(str(result))
    if save is not None and ready.backend.processes.is_first:
        result.save(save)
    return result


def open_loop(
    ready: Prepared,
    options: RunOptions,
    callbacks: Sequence[Callback] = (),
    state: TrainingState | None = None,
    *,
    evaluates: bool = True,
    good: Sequence[TrainingState] = (),
) -> Loop:
    """The loop of a run, ready for its next update.

    Args:
        ready: From ``prepare``.
        options: Of the run.
        callbacks: Told of each event.
        state: To go on from; it fits.
        evaluates: Whether each epoch ends with an evaluation, also where no schedule reacts to it.
        good: Earlier states that a rollback may go back to.

    Raises:
        CheckpointError: The framework cannot take the state.
        SpecError: The model's forward pass does not take the data's images, or answers with something else than one
            number for each class.
    """
    plan, model = ready.plan, ready.model
    trainable = trainable_parameters(model)
    gone = {} if state is None else state.about
    chosen = options.divergence
    counted = gone.get("counted", {})
    guard = Guard(chosen.action, chosen.rollback_factor, chosen.skip_advances, gone.get("rate_factor", 1.0), counted)
    step = 0 if state is None else state.step

    def open_at(rate_factor: float) -> Session:
        set_trainable(model, frozenset(), trainable)
        scaled = plan if rate_factor == 1 else plan.scale_rates(rate_factor)
        return open_session(ready.backend, scaled, model, ready.dataset.facts.label_classes, ready.extras, step)

    history = History.of({} if state is None else state.history, len(plan.groups), plan.total_steps)
    history.sort_logged(map(str, gone.get("logged", ())))
    session = open_at(guard.rate_factor)
    if not is_catalogued(options.model):  # what those of the catalogue answer is known
        check_answer(session, ready.batches)
    if ready.batches.sizes:
        check_sizes(session, ready.batches)
    if state is not None:
        session.import_state(state)
    return Loop(
        session,
        plan,
        ready.batches,
        options.progress and ready.backend.processes.is_first,
        history,
        guard=guard,
        reopen=open_at,
        good=good,
        back_at=gone.get("back_at"),
        left_out=counted.get("left_out", 0),
        skipped=gone.get("skipped", 0),
        events=gone.get("events", ()),
        epoch_is_open=bool(gone.get("epoch_is_open", False)),
        callbacks=callbacks if ready.backend.processes.is_first else [each for each in callbacks if not each.writes],
        backend=options.backend,
        evaluates=evaluates,
        metrics=dict(options.metrics),
        test_loss=_test_loss(ready),
        watcher=None if options.early_stop is None else Watcher(options.early_stop),
        processes=ready.backend.processes,
    )


def _test_loss(ready: Prepared) -> MeasuredLoss | None:
    """The loss of the test set, which stands where there is no accuracy; None for class numbers."""
    loss = ready.extras.loss
    if ready.dataset.facts.has_classes or not isinstance(loss, FunctionLoss):
        return None
    return MeasuredLoss(functools.partial(ready.backend.measure_loss, loss), loss.reduction == "sum")


def _say_what_cannot_be_restored(session: Session) -> None:
    if modules := session.random_modules():
        say(
            f"{', '.join(modules)} draws random numbers that this backend cannot restore: a run that is stopped goes "
            "on with other ones."
        )


def _result(ready: Prepared, options: RunOptions, loop: Loop) -> Result:
    plan, history, session = ready.plan, loop.history, loop.session
    weights, average = loop.final_weights()
    check_finite(plan, weights)
    norms = history.grad_norms.numbers()
    return Result(
        backend=options.backend,
        plan=plan,
        losses=history.losses.numbers(),
        rates=_by_group(plan, history.rates.numbers()),
        accuracies=history.accuracies.numbers(),
        grad_norms=np.hypot.reduce(norms, axis=1),
        group_grad_norms=_by_group(plan, norms),
        ema_accuracies=history.ema_accuracies.numbers(),
        ema_weights=average,
        weights=weights,
        lowering=ready.lowering,
        seconds_per_step=loop.watch.seconds_per_step,
        first_step_seconds=loop.watch.first_step_seconds,
        compile_seconds=loop.compile_seconds,
        versions=all_versions(options.backend),
        options=options.to_dict(),
        planned_rates=_by_group(plan, history.planned.numbers()),
        events=tuple(loop.events),
        logged={name: rows.numbers() for name, rows in history.logged.items()},
        unsaved=dict(session.unsaved()),
        model_input=replace(ready.model_input, digest=_find_digest(ready, options)),
        make_model=None if isinstance(options.model, str) else options.model,
        loss_function=options.loss if isinstance(options.loss, LossFunction) else None,
        metrics=dict(options.metrics),
    )


def _find_digest(ready: Prepared, options: RunOptions) -> str:
    """The digest of the data; empty for images on the disk, which take long to read, where nothing is written down."""
    is_stored = isinstance(ready.dataset.x_train, StoredImages)
    return "" if is_stored and options.save is None and options.checkpoints is None else ready.dataset.digest()


def _by_group(plan: Plan, table: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return dict(zip((group.name for group in plan.groups), table.T, strict=True))


def run_about(ready: Prepared, options: RunOptions) -> dict[str, Any]:
    """What a checkpoint says of its run, as plain tables."""
    return {
        "plan": ready.plan.to_dict(),
        "groups": {group.name: list(group.parameters) for group in ready.plan.groups},
        "options": options.to_dict(),
        "data": ready.dataset.digest(),
        "input": ready.model_input.to_dict(),
        "versions": all_versions(options.backend),
    }


def all_versions(backend: str) -> dict[str, str]:
    """Of this library, Python, NumPy and the backend's packages."""
    own = {"python": platform.python_version(), "numpy": np.__version__, "layered_lr": __version__}
    return own | {name: version for name, version in find_versions(TABLE[backend].framework).items() if version}
