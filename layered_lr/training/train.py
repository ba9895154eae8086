"""Training, top to bottom: a spec, a backend, a model and data become a ``Result``."""

from __future__ import annotations

import json
import platform
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.base import Session
from layered_lr.backend.phased_session import open_session
from layered_lr.console import say
from layered_lr.errors import CheckpointError
from layered_lr.models.nn_modules import set_trainable, trainable_parameters
from layered_lr.plans.plan import Plan
from layered_lr.registry import TABLE, check_name, find_versions
from layered_lr.spec.spec import Spec
from layered_lr.state.training_state import TrainingState
from layered_lr.training.checks import check_answer, check_finite
from layered_lr.training.divergence import Guard
from layered_lr.training.history import History
from layered_lr.training.loop import Loop
from layered_lr.training.options import RunOptions
from layered_lr.training.prepare import Prepared, prepared
from layered_lr.training.result import Result
from layered_lr.training.run_folder import RunFolder
from layered_lr.training.run_log import Keeper
from layered_lr.version import __version__


def train(spec: Spec, options: RunOptions) -> Result:
    """See ``layered_lr.run``; everything that can be wrong is found before the framework is loaded, if it can be."""
    check_name(options.backend)
    if options.checkpoint_dir is None:
        return trained(prepared(spec, options), options)
    spec.to_dict()  # a lambda in it could not be written down
    with RunFolder(options.checkpoint_dir) as folder:
        if folder.holds_a_run:
            raise CheckpointError(
                f"{folder.path}: holds a run already. Go on with it (layered-lr resume {folder.path}), or choose "
                "another folder."
            )
        return trained(prepared(spec, options), options, folder)


def trained(
    ready: Prepared, options: RunOptions, folder: RunFolder | None = None, state: TrainingState | None = None
) -> Result:
    """Train from the start, or from where a state stands, to the end.

    Args:
        ready: From ``prepared``.
        options: Of the run.
        folder: Where checkpoints go, open.
        state: To go on from; it fits.
    """
    plan, model = ready.plan, ready.model
    trainable = trainable_parameters(model)
    gone = {} if state is None else state.about
    guard = Guard(options.on_divergence, options.rollback_factor, options.skip_advances, gone.get("rate_factor", 1.0))
    step = 0 if state is None else state.step

    def opened(rate_factor: float) -> Session:
        set_trainable(model, frozenset(), trainable)
        scaled = plan if rate_factor == 1 else plan.scale_rates(rate_factor)
        return open_session(ready.backend, scaled, model, ready.dataset.num_classes, ready.extras, step)

    session = opened(guard.rate_factor)
    if not isinstance(options.model, str):  # what models known by name answer is known
        check_answer(session, ready.batches)
    if state is not None:
        session.import_state(state)
    history = History.of({} if state is None else state.history, len(plan.groups), plan.total_steps)
    keeper, changed = None, False
    if folder is not None:
        about = {"run": gone.get("run", uuid.uuid4().hex), **run_about(ready, options)}
        changed = any(json.loads(json.dumps(about[name])) != gone.get(name) for name in ("plan", "options"))
        keeper = Keeper(folder, plan, options, about, None if state is None else step, changed)
        _say_what_cannot_be_restored(session)
    before = gone.get("skipped", 0), gone.get("events", ())
    loop = Loop(session, plan, ready.batches, options.progress, history, keeper, guard, opened, *before)
    loop.run(checkpoint_first=keeper is not None and changed)
    result = _result(ready, options, loop)
    if keeper is not None:
        keeper.report(str(result))
    if options.save:
        result.save(options.save)
    return result


def _say_what_cannot_be_restored(session: Session) -> None:
    if modules := session.random_modules():
        say(
            f"{', '.join(modules)} draws random numbers that this backend cannot restore: a run that is stopped goes "
            "on with other ones."
        )


def _result(ready: Prepared, options: RunOptions, loop: Loop) -> Result:
    plan, history, session = ready.plan, loop.history, loop.session
    weights = session.weights()
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
        ema_weights={} if options.ema_decay is None else session.ema_weights(),
        weights=weights,
        lowering=ready.lowering,
        seconds_per_step=loop.seconds_per_step,
        first_step_seconds=loop.first_step_seconds,
        compile_seconds=loop.compile_seconds,
        versions=all_versions(options.backend),
        options=options.to_dict(),
        planned_rates=_by_group(plan, history.planned.numbers()),
        events=tuple(loop.events),
    )


def _by_group(plan: Plan, table: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return dict(zip((group.name for group in plan.groups), table.T, strict=True))


def run_about(ready: Prepared, options: RunOptions) -> dict[str, Any]:
    """What a checkpoint says of its run, as plain tables."""
    return {
        "plan": ready.plan.to_dict(),
        "groups": {group.name: list(group.parameters) for group in ready.plan.groups},
        "options": options.to_dict(),
        "data": ready.dataset.digest(),
        "versions": all_versions(options.backend),
    }


def all_versions(backend: str) -> dict[str, str]:
    """Of this library, Python, NumPy and the backend's packages."""
    own = {"python": platform.python_version(), "numpy": np.__version__, "layered_lr": __version__}
    return own | {name: version for name, version in find_versions(TABLE[backend].framework).items() if version}
