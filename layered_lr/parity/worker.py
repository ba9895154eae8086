"""One backend in a process of its own, which ``parity.processes`` starts with the path of a request.

It writes what it finds to files of the request's folder, and a byte for each update to the pipe that it is given; when
nobody reads that any more, it ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.loading import load_backend
from layered_lr.errors import BackendUnavailable, LayeredLRError
from layered_lr.files import read_archive
from layered_lr.parity.packing import unpacked
from layered_lr.parity.recorder import prepare_task
from layered_lr.parity.recording import Recording, record_fully
from layered_lr.parity.rounding import measure_rounding
from layered_lr.parity.task import Task

REFUSED = 3  # the exit code of a backend that says itself why it does not run
ROUNDING, MEASURING = "rounding.npz", "measuring"
"""The files of what rounding explains, and of a worker that has begun to measure it."""
_WEIGHT = "weights/"


class Request(NamedTuple):
    """What a worker is to do.

    Args:
        role: Record a backend; record the reference and measure on it what rounding explains; or measure alone.
        backend: Its name.
        task: What to run.
        folder: Where the files go; those of the reference are there to measure rounding.
        start: File of the weights to begin with; written where it is not there.
        float64: Whether to try float64, if the task may have it; to measure alone, whether all backends have it.
        samples: Disturbed runs of the reference; None chooses.
        pipe: File descriptor for progress.
    """

    role: Literal["record", "reference", "rounding"]
    backend: str
    task: Task
    folder: Path
    start: Path
    float64: bool
    samples: int | None
    pipe: int


def main() -> None:
    """Do what the request says."""
    request: Request = unpacked(Path(sys.argv[1]).read_bytes())
    try:
        _RUNNERS[request.role](request)
    except LayeredLRError as error:
        said: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, BackendUnavailable):
            said["arguments"] = [error.backend, error.reason, error.mend]
        (request.folder / "refusal.json").write_text(json.dumps(said))
        _leave(REFUSED)
    _leave(0)


def _leave(code: int) -> None:
    """OneFlow 0.9 crashes at times while it is taken down, when all is done."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _record(request: Request) -> None:
    backend = load_backend(request.backend, request.task.options.device)
    start = read_start(request.start) if request.start.exists() else None
    ready = prepare_task(backend, request.task, start)
    if start is None:
        begun = backend.state(ready.model)
        np.savez(request.start, **{_WEIGHT + name: array for name, array in begun.items()})
        start = read_start(request.start)
    (request.folder / "parameters.json").write_text(json.dumps(ready.plan.parameters))
    record_fully(
        ready,
        request.task,
        start,
        float64=request.float64,
        folder=request.folder,
        advanced=lambda: _tick(request),
    )


def _record_reference(request: Request) -> None:
    """In one process, since each takes seconds to start; the other backends most likely have float64 too."""
    _record(request)
    _measure_rounding(request)


def _measure_rounding(request: Request) -> None:
    (request.folder / MEASURING).touch()
    measured = measure_rounding(
        load_backend(request.backend, request.task.options.device),
        request.task,
        Recording.load(request.folder),
        read_start(request.start),
        samples=request.samples,
        all_have_float64=request.float64,
        log=request.folder / "sample.bin",
        advanced=lambda: _tick(request),
    )
    measured.save(request.folder / ROUNDING)


_RUNNERS = {"record": _record, "reference": _record_reference, "rounding": _measure_rounding}


def _tick(request: Request) -> None:
    try:
        os.write(request.pipe, b".")
    except BrokenPipeError:
        os._exit(1)


def read_start(path: Path) -> dict[str, NDArray[Any]]:
    """The weights that every backend begins with."""
    return {name.removeprefix(_WEIGHT): array for name, array in read_archive(path).items()}
