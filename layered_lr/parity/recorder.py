"""One backend's run, recorded: in this process, with any ``Backend``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Weights
from layered_lr.backend.base import Backend, Dtype, Extras, Session
from layered_lr.backend.phased_session import open_session
from layered_lr.data import Batches, load_dataset
from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import parameters_of
from layered_lr.models.weight_files import read_weights
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.probe import known_answers, run_rung, rungs_of
from layered_lr.parity.state_vector import Layout, layout_of, with_averages
from layered_lr.parity.task import Task
from layered_lr.parity.trace import ProbeTrace, Trace, digest, weight_log
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.registry import TABLE, find_versions
from layered_lr.training.checks import check_answer, check_trainable
from layered_lr.training.evaluation import accuracy
from layered_lr.training.prepare import start_weights

Advanced = Callable[[], None]


class Setting(NamedTuple):
    """A run that is ready to begin.

    Args:
        dtype: Of weights and arithmetic.
        plan: Made for the model.
        batches: Of the data.
        model: The framework's.
        start: What the model begins with.
        frozen: Names of parameters that do not train.
    """

    dtype: Dtype
    plan: Plan
    batches: Batches
    model: Any
    start: dict[str, NDArray[Any]]
    frozen: frozenset[str]


def prepared(backend: Backend, task: Task, start: Weights | None = None, dtype: Dtype | None = None) -> Setting:
    """Build the model and bring it to its start.

    Args:
        backend: Builds it.
        task: What to run.
        start: The reference's; None draws it from the seed, or takes what the callable made or the user gave.
        dtype: Instead of the task's.

    Raises:
        SpecError: The start is of another model.
    """
    options = task.options
    dtype = dtype or options.dtype
    dataset = load_dataset(options.data, options.data_root)
    batches = Batches(dataset, options.batch_size, options.seed, options.augment)
    in_epoch = options.steps_per_epoch(len(dataset.y_train))
    model = backend.build(options.model, dataset.num_classes, options.dropout, options.seed, dtype)
    plan = resolve(task.spec, model, options.total_steps(in_epoch), in_epoch)
    check_trainable(plan, model)
    own = backend.state(model)
    if start is None:
        given = None if options.initial_weights is None else read_weights(options.initial_weights)
        start = start_weights(options, plan, dataset.num_classes, lambda: own, given)
    _check_start(own, start)
    begun = {name: start[name].astype(array.dtype) if name in start else array for name, array in own.items()}
    backend.load(model, begun)
    frozen = frozenset(parameter.name for parameter, tensor in parameters_of(model) if not tensor.requires_grad)
    return Setting(dtype, plan, batches, model, begun, frozen)


def _check_start(own: Weights, start: Weights) -> None:
    """Counters of batch normalisations aside, which a framework may lack, all names and shapes must be there."""
    mine = {name: array.shape for name, array in own.items() if array.dtype.kind == "f"}
    theirs = {name: array.shape for name, array in start.items() if array.dtype.kind == "f"}
    if odd := [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]:
        shapes = f"{mine.get(odd[0], 'missing')} here and {theirs.get(odd[0], 'missing')} in the reference's model"
        raise SpecError(
            f"model: {len(odd)} arrays differ from those of the reference's model: {odd[0]!r} is {shapes}. "
            "The models must have the same names and shapes, so that all begin with the same weights."
        )


def record(
    backend: Backend,
    task: Task,
    setting: Setting,
    *,
    disturbance: Disturbance | None = None,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Trace:
    """Make the run and write down what happens.

    Args:
        backend: Who runs.
        task: What to run.
        setting: From ``prepared``, used once: the run trains its model.
        disturbance: Shakes the weights by last bits before each gradient, and orders each batch otherwise: the
            gradient is that of weights with an error, the update acts on the weights without it, as rounding in
            the forward and the backward pass does; on top of it the weights keep an error of last bits.
        log: File of the weights; None keeps them in memory.
        advanced: Called after each update.
    """
    plan, options, dtype = setting.plan, task.options, setting.dtype
    classes = setting.batches.dataset.num_classes
    extras = Extras(options.accumulate_steps, options.ema_decay, True, options.seed)
    session = open_session(backend, plan, setting.model, classes, extras)
    check_answer(session, setting.batches)
    state = with_averages(dict(setting.start), _averages(session, setting.start))
    layout = layout_of(plan, state)
    rows = np.array(task.kept_steps(layout.width), dtype=np.int64)
    weights = weight_log(log, (len(rows), layout.width), dtype)
    shaker = None if disturbance is None else _Shaker(backend, setting, disturbance)
    recording = _Recording(session, layout, rows, weights, layout.packed(state, dtype), shaker)
    began = time.perf_counter()
    ended = ""
    updates = itertools.islice(setting.batches.updates(options.accumulate_steps), task.steps)
    for step, (images, labels, parts) in enumerate(updates):
        recording.batches.append(digest(images, labels))
        if disturbance is not None:
            images, labels = disturbance.shuffled(images, labels, parts)
        handle = session.train_step(images, labels, parts)
        (loss,) = session.losses([handle])
        if not np.isfinite(loss):
            ended = f"the loss is {loss} at step {step}"
            break
        recording.add(loss)
        _observe(session, setting, recording.losses)
        advanced()
    seconds = time.perf_counter() - began
    steps = len(recording.losses)
    return Trace(
        backend=backend.name,
        dtype=dtype,
        layout=layout,
        losses=np.array(recording.losses),
        rates=session.rates(0, steps),
        grad_norms=session.grad_norms(0, steps),
        update_norms=np.array(recording.update_norms).reshape(steps, -1),
        update_sizes=np.array(recording.update_sizes).reshape(steps, -1),
        rows=rows[: recording.kept],
        weights=weights[: recording.kept],
        digests=np.array(recording.digests),
        batches=np.array(recording.batches[:steps]),
        ended=ended,
        seconds=seconds,
    )


def _averages(session: Session, start: Weights) -> Weights:
    """The moving average before the first update: the weights, where one is kept."""
    return {} if session.extras.ema_decay is None else start


class _Shaker:
    """Puts errors into a model's weights before each gradient, and takes them out of what the update made."""

    def __init__(self, backend: Backend, setting: Setting, disturbance: Disturbance) -> None:
        self.backend, self.model, self.disturbance = backend, setting.model, disturbance
        self._plan = setting.plan
        self.names = [p.name for p in setting.plan.parameters if p.name not in setting.frozen]
        self._errors: dict[str, NDArray[Any]] = {}
        self._step = 0
        self._shake({name: setting.start[name] for name in self.names})

    def settled(self, state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The weights after an update without the errors that its gradient saw; new errors go into the model."""
        calm = {name: state[name] - error for name, error in self._errors.items()}
        self._step += 1
        self._shake(calm)
        return state | calm

    def _shake(self, calm: Weights) -> None:
        still = self._plan.plan_at(self._step).frozen  # which no update rounds
        kept, shaken = dict(calm), dict(calm)
        typical = float(np.sqrt(np.mean(np.concatenate([array.ravel() for array in calm.values()]) ** 2)))
        for name in [name for name in calm if name not in still]:
            kept[name] = self.disturbance.kept(calm[name])
            shaken[name] = self.disturbance.passing(kept[name], typical)
        self._errors = {name: shaken[name] - kept[name] for name in kept}
        self.backend.load(self.model, shaken)


class _Recording:
    """What is written down after each update."""

    def __init__(
        self,
        session: Session,
        layout: Layout,
        rows: NDArray[np.int64],
        weights: NDArray[Any],
        start: NDArray[Any],
        shaker: _Shaker | None,
    ) -> None:
        self.session, self.layout, self.weights, self.shaker = session, layout, weights, shaker
        self.losses: list[float] = []
        self.update_norms: list[Any] = []
        self.update_sizes: list[Any] = []
        self.digests: list[Any] = []
        self.batches: list[Any] = []
        self.kept = 0
        self._rows = set(rows.tolist())
        self._last = start
        self._keep(0, start)

    def add(self, loss: float) -> None:
        """After an update whose loss is known."""
        self.losses.append(float(loss))
        state = self.session.weights()
        if self.shaker is not None:
            state = self.shaker.settled(state)
        if self.session.extras.ema_decay is not None:
            state = with_averages(state, self.session.ema_weights())
        vector = self.layout.packed(state, self._last.dtype)
        change = vector.astype(np.float64) - self._last
        self.update_norms.append(self.layout.norms(change))
        self.update_sizes.append(self.layout.largest(change))
        self.digests.append(digest(vector))
        self._last = vector
        self._keep(len(self.losses), vector)

    def _keep(self, step: int, vector: NDArray[Any]) -> None:
        if step in self._rows:
            self.weights[self.kept] = vector
            self.kept += 1


def parts_of(batches: Batches, task: Task) -> NDArray[np.int64]:
    """How many batches make each update, shape (steps,)."""
    together, in_epoch = task.options.accumulate_steps, batches.steps_per_epoch
    full, rest = divmod(in_epoch, together)
    return np.resize([together] * full + [rest] * (rest > 0), task.steps).astype(np.int64)


def _observe(session: Session, setting: Setting, losses: list[float]) -> None:
    """Let reactive schedules see what the training loop would show them."""
    plan = session.plan
    units = plan.reacting_units
    in_epoch = plan.steps_per_epoch or 1
    if "step" in units:
        session.observe({"loss": losses[-1]}, "step")
    if "epoch" in units and len(losses) % in_epoch == 0:
        metrics = {"loss": float(np.mean(losses[-in_epoch:])), "accuracy": accuracy(session, setting.batches)}
        session.observe(metrics, "epoch")


def record_probes(
    backend: Backend,
    task: Task,
    setting: Setting,
    *,
    disturbance: Disturbance | None = None,
    advanced: Advanced = lambda: None,
) -> dict[str, ProbeTrace]:
    """What the backend's optimizer does to the probe, by rung; ``setting``'s model takes no part."""
    return {
        rung.name: run_rung(
            backend,
            setting.plan,
            rung,
            frozen=setting.frozen,
            dtype=setting.dtype,
            seed=task.options.seed,
            disturbance=disturbance,
            advanced=advanced,
        )
        for rung in rungs_of(task.spec, parts_of(setting.batches, task))
    }


def full_record(
    backend: Backend,
    task: Task,
    setting: Setting,
    *,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Trace:
    """The run, the probes, how exact the framework's loss is, and what a reader should know."""
    notes = tuple(_notes(setting, backend))
    trace = record(backend, task, setting, log=log, advanced=advanced)
    trace.probes = record_probes(backend, task, setting, advanced=advanced)
    options = task.options
    classes = setting.batches.dataset.num_classes
    trace.loss_bits = max(known_answers(backend, classes, options.batch_size, setting.dtype, options.seed))
    trace.notes = notes
    known = find_versions(TABLE[backend.name].framework).items()
    trace.versions = {name: version for name, version in known if version}
    return trace


def _notes(setting: Setting, backend: Backend) -> Iterator[str]:
    if masks := sorted(set(_dropouts(setting.model))):
        yield (
            f"{backend.name}: the model has {', '.join(masks)}: masks differ between frameworks, so that these runs "
            "cannot be the same. Compare with a model without dropout."
        )


def _dropouts(module: Any) -> Iterator[str]:
    """Dropout modules that drop anything by masks of the framework's own, as they call themselves."""
    own = not getattr(module, "shares_masks", False)
    if own and "Dropout" in type(module).__name__ and getattr(module, "p", False):
        yield f"{type(module).__name__}(p={module.p:g})"
    for child in module._modules.values():
        if child is not None:
            yield from _dropouts(child)
