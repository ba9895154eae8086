"""One backend's run, recorded: a callback of the training loop, which ``ll.run`` goes through too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Weights
from layered_lr.backend.base import Backend
from layered_lr.data import Batches
from layered_lr.errors import TrainingDiverged
from layered_lr.models.nn_modules import parameters_of
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.probe import known_answers, run_rung, rungs_of
from layered_lr.parity.state_vector import Layout, layout_of, with_averages
from layered_lr.parity.task import Task
from layered_lr.parity.trace import ProbeTrace, Trace, digest, weight_log
from layered_lr.registry import TABLE, find_versions
from layered_lr.training.callback import Callback
from layered_lr.training.events import BatchEvent, BeginEvent, DivergenceEvent, UpdateEvent
from layered_lr.training.prepare import Prepared, prepare
from layered_lr.training.train import open_loop

Advanced = Callable[[], None]


def prepare_task(backend: Backend, task: Task, start: Weights | None = None) -> Prepared:
    """Build the model and bring it to its start, as ``ll.run`` does; gradient norms are measured.

    Args:
        backend: Builds it.
        task: What to run.
        start: The reference's; None draws it from the seed, or takes what the callable made or the user gave.

    Raises:
        SpecError: The start is of another model.
    """
    ready = prepare(task.spec, task.options, backend=backend, start=start)
    return ready._replace(extras=ready.extras._replace(grad_norms=True))


def record(
    ready: Prepared,
    task: Task,
    *,
    disturbance: Disturbance | None = None,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Trace:
    """Make the run and write down what happens.

    Args:
        ready: From ``prepare_task``, used once: the run trains its model.
        task: What to run.
        disturbance: Shakes the weights by last bits before each gradient, and orders each batch otherwise: the
            gradient is that of weights with an error, the update acts on the weights without it, as rounding in
            the forward and the backward pass does; on top of it the weights keep an error of last bits.
        log: File of the weights; None keeps them in memory.
        advanced: Called after each update.
    """
    recorder = Recorder(ready, task, disturbance, log, advanced)
    loop = open_loop(ready, replace(task.options, progress=False), [recorder], evaluates=False)
    try:
        loop.run()
    except TrainingDiverged:
        if not recorder.ended:
            raise
    return recorder.trace(loop.history.rates.numbers(), loop.history.grad_norms.numbers())


class Recorder(Callback):
    """Writes down each update of a run, and ends the run after the task's last one.

    Args:
        ready: The run; its model is at its start.
        task: What to run.
        disturbance: Errors of last bits to put into the run; None puts none.
        log: File of the weights; None keeps them in memory.
        advanced: Called after each update.
    """

    def __init__(
        self, ready: Prepared, task: Task, disturbance: Disturbance | None, log: Path | None, advanced: Advanced
    ) -> None:
        self._ready, self._task, self._disturbance, self._advanced = ready, task, disturbance, advanced
        self._averages = ready.extras.ema_decay is not None
        start = ready.backend.state(ready.model)
        state = with_averages(start, start if self._averages else {})  # before the first update, the average is it
        dtype = task.options.precision.dtype
        self.layout: Layout = layout_of(ready.plan, state)
        self._rows = np.array(task.kept_steps(self.layout.width), dtype=np.int64)
        self._weights = weight_log(log, (len(self._rows), self.layout.width), dtype)
        self._last = self.layout.packed(state, dtype)
        self._kept = 0
        self._keep(0, self._last)
        self._start = start
        self._shaker: _Shaker | None = None
        self.ended = ""
        self._losses: list[float] = []
        self._update_norms: list[Any] = []
        self._update_sizes: list[Any] = []
        self._digests: list[Any] = []
        self._batches: list[Any] = []
        self._began = self._seconds = time.perf_counter()

    def on_begin(self, event: BeginEvent) -> None:
        """Begin to count the time, and to disturb the run."""
        if self._disturbance is not None:
            self._shaker = _Shaker(self._ready, self._start, self._disturbance)
        self._began = time.perf_counter()

    def on_batch(self, event: BatchEvent) -> None:
        """Note which batch it is; put its images into another order where the run is disturbed."""
        self._batches.append(digest(event.images, event.labels))
        if self._disturbance is not None:
            event.images, event.labels = self._disturbance.shuffled(event.images, event.labels, event.parts)

    def on_update(self, event: UpdateEvent) -> None:
        """Write the update down; waits for it."""
        loss = float(event.loss)
        self._losses.append(loss)
        state = dict(event.run.weights())
        if self._shaker is not None:
            state = self._shaker.settle(state)
        if self._averages:
            state = with_averages(state, event.run.ema_weights())
        vector = self.layout.packed(state, self._last.dtype)
        change = vector.astype(np.float64) - self._last
        self._update_norms.append(self.layout.norms(change))
        self._update_sizes.append(self.layout.largest(change))
        self._digests.append(digest(vector))
        self._last = vector
        self._keep(len(self._losses), vector)
        self._seconds = time.perf_counter()
        self._advanced()
        if len(self._losses) == self._task.steps:
            event.run.stop()

    def on_divergence(self, event: DivergenceEvent) -> None:
        """Note why the run ends before its last update."""
        self.ended = f"{event.why} at step {event.step}"

    def _keep(self, step: int, vector: NDArray[Any]) -> None:
        if self._kept < len(self._rows) and step == self._rows[self._kept]:
            self._weights[self._kept] = vector
            self._kept += 1

    def trace(self, rates: NDArray[np.float64], grad_norms: NDArray[np.float64]) -> Trace:
        """What was recorded.

        Args:
            rates: Each group's rate at each update, as the loop read it off the framework, shape (steps, groups).
            grad_norms: Each group's gradient norm at each update, shape (steps, groups).
        """
        steps = len(self._losses)
        return Trace(
            backend=self._ready.backend.name,
            dtype=self._task.options.precision.dtype,
            layout=self.layout,
            losses=np.array(self._losses),
            rates=rates[:steps],
            grad_norms=grad_norms[:steps],
            update_norms=np.array(self._update_norms).reshape(steps, -1),
            update_sizes=np.array(self._update_sizes).reshape(steps, -1),
            rows=self._rows[: self._kept],
            weights=self._weights[: self._kept],
            digests=np.array(self._digests),
            batches=np.array(self._batches[:steps]),
            ended=self.ended,
            seconds=self._seconds - self._began,
        )


class _Shaker:
    """Puts errors into a model's weights before each gradient, and takes them out of what the update made."""

    def __init__(self, ready: Prepared, start: Weights, disturbance: Disturbance) -> None:
        self._ready, self._disturbance = ready, disturbance
        frozen = frozen_parameters(ready.model)
        self._names = [parameter.name for parameter in ready.plan.parameters if parameter.name not in frozen]
        self._errors: dict[str, NDArray[Any]] = {}
        self._step = 0
        self._shake({name: start[name] for name in self._names})

    def settle(self, state: Weights) -> dict[str, NDArray[Any]]:
        """The weights after an update without the errors that its gradient saw; new errors go into the model."""
        calm = {name: state[name] - error for name, error in self._errors.items()}
        self._step += 1
        self._shake(calm)
        return {**state, **calm}

    def _shake(self, calm: Weights) -> None:
        still = self._ready.plan.plan_at(self._step).frozen  # which no update rounds
        kept, shaken = dict(calm), dict(calm)
        typical = float(np.sqrt(np.mean(np.concatenate([array.ravel() for array in calm.values()]) ** 2)))
        for name in [name for name in calm if name not in still]:
            kept[name] = self._disturbance.kept(calm[name])
            shaken[name] = self._disturbance.passing(kept[name], typical)
        self._errors = {name: shaken[name] - kept[name] for name in kept}
        self._ready.backend.load(self._ready.model, shaken)


def frozen_parameters(model: Any) -> frozenset[str]:
    """Names of the parameters that do not train because of ``requires_grad=False``."""
    return frozenset(parameter.name for parameter, tensor in parameters_of(model) if not tensor.requires_grad)


def parts_of(batches: Batches, task: Task) -> NDArray[np.int64]:
    """How many batches make each update, shape (steps,)."""
    together, in_epoch = task.options.accumulate_steps, batches.steps_per_epoch
    full, rest = divmod(in_epoch, together)
    return np.resize([together] * full + [rest] * (rest > 0), task.steps).astype(np.int64)


def record_probes(
    ready: Prepared,
    task: Task,
    *,
    frozen: frozenset[str],
    disturbance: Disturbance | None = None,
    advanced: Advanced = lambda: None,
) -> dict[str, ProbeTrace]:
    """What the backend's optimizer does to the probe, by rung; the run's own model takes no part.

    Args:
        ready: The run.
        task: What to run.
        frozen: Names of the parameters that do not train.
        disturbance: Errors of last bits to put into gradients and weights; None puts none.
        advanced: Called after each update.
    """
    return {
        rung.name: run_rung(
            ready.backend,
            ready.plan,
            rung,
            frozen=frozen,
            dtype=task.options.precision.dtype,
            seed=task.options.seed,
            disturbance=disturbance,
            advanced=advanced,
        )
        for rung in rungs_of(task.spec, parts_of(ready.batches, task))
    }


def record_fully(ready: Prepared, task: Task, *, log: Path | None = None, advanced: Advanced = lambda: None) -> Trace:
    """The run, the probes, how exact the framework's loss is, and what a reader should know.

    Args:
        ready: From ``prepare_task``, used once.
        task: What to run.
        log: File of the weights; None keeps them in memory.
        advanced: Called after each update.
    """
    backend, options = ready.backend, task.options
    notes, frozen = tuple(_notes(ready)), frozen_parameters(ready.model)
    trace = record(ready, task, log=log, advanced=advanced)
    trace.probes = record_probes(ready, task, frozen=frozen, advanced=advanced)
    classes = ready.dataset.num_classes
    trace.loss_bits = max(known_answers(backend, classes, options.batch_size, options.precision.dtype, options.seed))
    trace.notes = notes
    known = find_versions(TABLE[backend.name].framework).items()
    trace.versions = {name: version for name, version in known if version}
    return trace


def _notes(ready: Prepared) -> Iterator[str]:
    if masks := sorted(set(_dropouts(ready.model))):
        yield (
            f"{ready.backend.name}: the model has {', '.join(masks)}: masks differ between frameworks, so that these "
            "runs cannot be the same. Compare with a model without dropout."
        )


def _dropouts(module: Any) -> Iterator[str]:
    """Dropout modules that drop anything by masks of the framework's own, as they call themselves."""
    own = not getattr(module, "shares_masks", False)
    if own and "Dropout" in type(module).__name__ and getattr(module, "p", False):
        yield f"{type(module).__name__}(p={module.p:g})"
    for child in module._modules.values():
        if child is not None:
            yield from _dropouts(child)
