"""One backend's run, recorded: a callback of the training loop, which ``ll.run`` goes through too."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Weights
from layered_lr.backend.base import Backend
from layered_lr.errors import TrainingDiverged
from layered_lr.models.norm_constants import hold_in_float32
from layered_lr.models.user_models import check_judged_dtype
from layered_lr.models.zoo import is_catalogued
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.shaker import Shaker, frozen_parameters
from layered_lr.parity.state_vector import Layout, layout_of, with_averages
from layered_lr.parity.task import Task
from layered_lr.parity.trace import DIGEST, Trace, digest, subtract, weight_log
from layered_lr.state.state_files import read_state, write_state
from layered_lr.state.training_state import TrainingState
from layered_lr.training.callback import Callback
from layered_lr.training.events import BatchEvent, BeginEvent, DivergenceEvent, EpochEvent, UpdateEvent
from layered_lr.training.loop import Loop
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
        Unsupported: A parameter has another dtype than the one in which the task is judged.
    """
    ready = prepare(task.spec, task.options, backend=backend, start=start)
    check_judged_dtype(ready.plan.parameters, task.options.precision.dtype)
    if not is_catalogued(task.options.model):
        backend.share_draws(ready.model, (task.options.batch_size, *ready.batches.image_shape))
    if task.float32_norms:
        hold_in_float32(ready.model)
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
    options = replace(task.options, progress=False)
    loop = recorder.attach(open_loop(ready, options, [recorder], evaluates=False))
    try:
        loop.run()
        if recorder.state is not None:
            again = prepare_task(ready.backend, task, recorder.start)
            state = _through_files(recorder.state)
            loop = recorder.attach(open_loop(again, options, [recorder], state, evaluates=False))
            loop.run()
    except TrainingDiverged:
        if not recorder.ended:
            raise
        loop.measured.collect()  # rates and norms of the updates before
    return recorder.trace(loop.history.rates.numbers(), loop.history.grad_norms.numbers())


def _through_files(state: TrainingState) -> TrainingState:
    """The state as a checkpoint's files give it back."""
    with tempfile.TemporaryDirectory(prefix="layered_lr-") as folder:
        write_state(Path(folder) / "state", state)
        return read_state(Path(folder) / "state")


class Recorder(Callback):
    """Writes down each update of a run, and ends the run after the task's last one.

    Where the task says so, it also ends the run in its middle, with the state to go on from in ``state``.

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
        self.start = start
        self.state: TrainingState | None = None
        self._loop: Callable[[], Loop | None] = lambda: None
        self._shaker: Shaker | None = None
        self._frozen = frozen_parameters(ready.model)  # by hand: the session has yet to freeze its first phase
        self.ended = ""
        self._losses: list[float] = []
        self._update_norms: list[Any] = []
        self._update_sizes: list[Any] = []
        self._digests: list[Any] = []
        self._batches: list[Any] = []
        self._counts: dict[str, NDArray[Any]] = {}
        self._began = self._seconds = time.perf_counter()

    def attach(self, loop: Loop) -> Loop:
        """Record this loop; it is not kept alive, since OneFlow's graphs must not live in a circle of references."""
        self._loop = weakref.ref(loop)
        return loop

    def on_begin(self, event: BeginEvent) -> None:
        """Begin to count the time, and to disturb the run."""
        if self._disturbance is not None:
            self._shaker = Shaker(self._ready, self.start, self._disturbance, self._frozen)
        self._began = time.perf_counter()

    def on_batch(self, event: BatchEvent) -> None:
        """Note which batch it is; put its images into another order where the run is disturbed."""
        self._batches.append(digest(event.images, event.labels))
        by_place = self._task.has_masks_by_place or getattr(self._ready.model, "layered_lr_shares_masks", False)
        if self._disturbance is not None and not by_place:
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
        self._counts = {name: array for name, array in state.items() if array.dtype.kind in "biu"}
        change = subtract(vector, self._last)
        self._update_norms.append(self.layout.norms(change))
        self._update_sizes.append(self.layout.largest(change))
        self._digests.append(digest(vector))
        self._last = vector
        self._keep(len(self._losses), vector)
        self._seconds = time.perf_counter()
        self._advanced()
        if len(self._losses) == self._task.steps:
            event.run.stop_unsaid()
        elif event.run.step % event.run.steps_per_epoch:  # at the end of an epoch, schedules have yet to react to it
            self._stop_in_the_middle(event)

    def on_epoch(self, event: EpochEvent) -> None:
        """Stop where the task says so, when what an epoch's end changes is done."""
        if len(self._losses) < self._task.steps:
            self._stop_in_the_middle(event)

    def _stop_in_the_middle(self, event: UpdateEvent | EpochEvent) -> None:
        loop = self._loop()
        if len(self._losses) == self._task.resume_at and self.state is None and loop is not None:
            self.state = loop.export_state()
            event.run.stop_unsaid()

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
            update_norms=np.array(self._update_norms).reshape(steps, len(self.layout.arrays)),
            update_sizes=np.array(self._update_sizes).reshape(steps, len(self.layout.arrays)),
            rows=self._rows[: self._kept],
            weights=self._weights[: self._kept],
            digests=np.array(self._digests, dtype=DIGEST),
            batches=np.array(self._batches[:steps], dtype=DIGEST),
            counts=self._counts,
            ended=self.ended,
            seconds=self._seconds - self._began,
        )
