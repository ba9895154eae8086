"""How long is it from the command to the first training step, beside imports and building the model by hand?

    python -m benchmarks.startup [--rounds 5] [--quick]

Each measurement is a fresh process, from its start to where its first step would begin: ``layered-lr run`` on 64
images, against a script that imports the framework, builds the same MobileNetV2 and its optimizer, and has the same
images ready (``benchmarks/opponents/ready.py``). The step itself is in neither. What compiling OneFlow's Graph takes
in the first step stands in a row of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frame.command import main, say
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated, one_line
from benchmarks.frame.worker import ROOT, Worker, WorkerError
from benchmarks.opponents.job import Job

BACKENDS = ("torch-eager", "oneflow-eager", "oneflow-graph")
_TARGET = Target(1.2)
_READY = ROOT / "benchmarks" / "opponents" / "ready.py"


def seconds(what: str, backend: str, data: str) -> float:
    """Of a process that gets ready for its first step."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    words = [sys.executable, str(_READY), what, backend, data]
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    taken = time.perf_counter() - began
    if done.returncode or done.stdout.split()[-1:] != ["ready"]:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
    return taken


class Startup:
    """The command against a script."""

    name = "startup"
    question = "How long is it from the command to the first step, beside imports and building the model by hand?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Processes in turn; a quick run has torch alone."""
        size, backends = 64, BACKENDS[:1] if quick else BACKENDS
        turns: dict[str, Callable[[], float]] = {}
        missing: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            data = str(_images(Path(folder), size))
            for backend in backends:
                for name, what in (("layered-lr run", "command"), ("script by hand", "hand")):
                    turns[f"{name}, {backend}"] = lambda what=what, backend=backend: seconds(what, backend, data)  # type: ignore[misc]
            taken = alternated(turns, rounds, warm_up=0 if quick else 1, say=say)
            missing |= taken.failed
            series = {
                name: Series(name, "start to the first step", "s", tuple(values))
                for name, values in taken.values.items()
            }
            compiling = []
            if not quick:
                try:
                    compiling.append(_compiling("oneflow-graph", Job(data, size, size, batch_size=size), rounds))
                except WorkerError as error:
                    missing["compile time of oneflow-graph"] = one_line(error)
        pairs = [(f"layered-lr run, {backend}", f"script by hand, {backend}") for backend in BACKENDS]
        ratios = [ratio(series[a], series[b], _TARGET) for a, b in pairs if a in series and b in series]
        return Report(
            self.name,
            self.question,
            series=(*series.values(), *compiling),
            ratios=tuple(ratios),
            missing=missing,
            notes=(f"MobileNetV2, {size} images of 32x32; processes start with the files in memory.",),
        )


def _compiling(backend: str, job: Job, rounds: int) -> Series:
    """What it says that compiling took, each in a fresh process."""
    values = []
    for _ in range(rounds):
        with Worker("benchmarks.startup:Compiling", {"job": job.to_dict(), "backend": backend}) as worker:
            values.append(float(worker.call("seconds").value))
    return Series(backend, "compile time", "s", tuple(values), note="in the first step")


class Compiling:
    """``ll.run``'s first step; arguments as of ``product.Opponent``."""

    def __init__(self, job: dict[str, Any], backend: str) -> None:
        from benchmarks.opponents.product import Opponent

        self.opponent = Opponent(job, backend)

    def seconds(self) -> float | None:
        """What compiling took."""
        return self.opponent.run(max_steps=1).compile_seconds


def _images(folder: Path, size: int) -> Path:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8), np.arange(size) % 10
    np.savez(folder / "images.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return folder / "images.npz"


BENCHMARK = Startup()

if __name__ == "__main__":
    main(BENCHMARK)
