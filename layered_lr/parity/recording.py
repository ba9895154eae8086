"""Everything that is recorded of one backend: its run, the same run in float64, and its probes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Weights
from layered_lr.data import Batches
from layered_lr.files import read_archive
from layered_lr.losses import PLAIN_LOSS, ClassLoss
from layered_lr.models.nn_modules import Module
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.probe import known_answers, run_rung, rungs_of
from layered_lr.parity.recorder import Advanced, prepare_task, record
from layered_lr.parity.shaker import frozen_parameters
from layered_lr.parity.task import Task
from layered_lr.parity.trace import RUN_SERIES, WEIGHTS_FILE, Differences, ProbeTrace, Trace, differences
from layered_lr.registry import TABLE, find_versions
from layered_lr.training.prepare import Prepared

_EXACT, _OWN = "float64", "own.npz"
ABSENT = "no_float64.txt"
"""The file that says why there is no run in float64; it is there while the process tries it."""


@dataclass(eq=False)
class Recording:
    """What one backend did.

    Args:
        run: The run as the user asked for it, and the probes.
        exact: The same run in float64; None where there is none.
        own: How far the backend is from itself with the images of each batch in another order and errors of one last
            bit, where ``exact`` is None.
        no_float64: Why ``exact`` is None, if float64 was tried.
    """

    run: Trace
    exact: Trace | None = None
    own: Differences | None = None
    no_float64: str = ""

    @cached_property
    def rounding(self) -> Differences:
        """The backend's own rounding, measured: how far its run is from the same run in float64, or from itself."""
        if self.exact is not None:
            return differences(self.run, self.exact)
        assert self.own is not None
        return self.own

    @classmethod
    def load(cls, folder: Path) -> Recording:
        """Read what ``record_fully`` wrote."""
        exact = Trace.load(folder / _EXACT) if (folder / _EXACT / "trace.npz").exists() else None
        own = _load_own(folder / _OWN) if (folder / _OWN).exists() else None
        absent = (folder / ABSENT).read_text() if (folder / ABSENT).exists() else ""
        return cls(Trace.load(folder), exact, own, absent)


def record_fully(
    ready: Prepared,
    task: Task,
    start: Weights,
    *,
    float64: bool = True,
    folder: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Recording:
    """The run and the probes, then the same run in float64, or else once more with rounding otherwise.

    What is known is written at once: a framework that has no float64 for a model may end the process.

    Args:
        ready: From ``prepare_task``, used once.
        task: What to run.
        start: What the run begins with.
        float64: Whether to try float64, if the task may have it.
        folder: Where to write; None keeps all in memory.
        advanced: Called after each update.
    """
    backend = ready.backend
    found = Recording(_record_run(ready, task, None if folder is None else folder / WEIGHTS_FILE, advanced))
    if folder is not None:
        found.run.save(folder)
    if float64 and task.may_have_float64:
        log = None
        if folder is not None:
            (folder / _EXACT).mkdir(exist_ok=True)
            (folder / ABSENT).write_text(f"{backend.name} ended while it trained in float64")
            log = folder / _EXACT / WEIGHTS_FILE
        try:
            exact = task.in_float64()
            found.exact = record(prepare_task(backend, exact, start), exact, log=log, advanced=advanced)
        except Exception as error:  # of a forward pass that has no float64, whatever it raises
            first_line = (str(error).strip() or repr(error)).splitlines()[0]
            found.no_float64 = f"{backend.name} does not train this in float64: {first_line[:300]}"
        if folder is not None:
            (folder / ABSENT).unlink() if found.exact else (folder / ABSENT).write_text(found.no_float64)
            if found.exact is not None:
                found.exact.save(folder / _EXACT)
    if found.exact is None:
        nudge = Disturbance(np.random.default_rng([task.options.seed, 8]), 1.0, 1.0)
        calm = replace(task, resume_at=None)
        found.own = differences(
            found.run, record(prepare_task(backend, calm, start), calm, disturbance=nudge, advanced=advanced)
        )
        if folder is not None:
            np.savez(folder / _OWN, **{name: getattr(found.own, name) for name in RUN_SERIES})
    return found


def _load_own(path: Path) -> Differences:
    arrays: dict[str, Any] = read_archive(path)
    return Differences(**arrays, rates=np.zeros((0, 0)), probes={})


def _record_run(ready: Prepared, task: Task, log: Path | None, advanced: Advanced) -> Trace:
    """The run as it was asked for, the probes, how exact the framework's loss is, and what a reader should know."""
    backend, options = ready.backend, task.options
    notes, frozen = tuple(_notes(ready)), frozen_parameters(ready.model)
    trace = record(ready, task, log=log, advanced=advanced)
    trace.probes = record_probes(ready, task, frozen=frozen, advanced=advanced)
    classes = ready.dataset.facts.label_classes or 2  # a known loss is that of classes
    dtype, loss = options.precision.dtype, options.loss.settings
    known_loss = loss if isinstance(loss, ClassLoss) else PLAIN_LOSS  # a function's right answer is not known here
    trace.loss_bits = max(known_answers(backend, classes, options.batch_size, dtype, options.seed, known_loss))
    trace.notes = notes
    known = find_versions(TABLE[backend.name].framework).items()
    trace.versions = {name: version for name, version in known if version}
    return trace


def parts_of(batches: Batches, task: Task) -> NDArray[np.int64]:
    """How many batches make each update of the probe, shape (steps,)."""
    together, in_epoch = task.options.accumulate_steps, batches.steps_per_epoch
    full, rest = divmod(in_epoch, together)
    return np.resize([together] * full + [rest] * (rest > 0), task.probed_steps).astype(np.int64)


def record_probes(
    ready: Prepared,
    task: Task,
    *,
    frozen: frozenset[str],
    only: str | None = None,
    disturbance: Disturbance | None = None,
    advanced: Advanced = lambda: None,
) -> dict[str, ProbeTrace]:
    """What the backend's optimizer does to the probe, by rung; the run's own model takes no part.

    Args:
        ready: The run.
        task: What to run.
        frozen: Names of the parameters that do not train.
        only: Name of the one rung to run; None runs all of them.
        disturbance: Errors of last bits to put into gradients and weights; None puts none.
        advanced: Called after each update.
    """
    return {
        rung.name: run_rung(
            ready.backend,
            ready.plan,
            rung,
            frozen=frozen,
            most=task.probed_of_each_kind,
            dtype=task.options.precision.dtype,
            seed=task.options.seed,
            disturbance=disturbance,
            advanced=advanced,
        )
        for rung in rungs_of(task.spec, parts_of(ready.batches, task))
        if only is None or rung.name == only
    }


def _notes(ready: Prepared) -> Iterator[str]:
    if masks := sorted(set(_dropouts(ready.model))):
        yield (
            f"{ready.backend.name}: the model has {', '.join(masks)}: masks differ between frameworks, so that these "
            "runs cannot be the same. Compare with a model without dropout."
        )


def _dropouts(module: Module) -> Iterator[str]:
    """Dropout modules that drop anything by masks of the framework's own, as they call themselves."""
    if getattr(module, "layered_lr_shares_masks", False):
        return
    if "Dropout" in type(module).__name__ and getattr(module, "p", False):
        yield f"{type(module).__name__}(p={module.p:g})"
    for child in module._modules.values():
        if child is not None:
            yield from _dropouts(child)
