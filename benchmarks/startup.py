"""How long is it from the command to the first training step, beside imports and building the model by hand?

    python -m benchmarks.startup [--rounds 5] [--quick]

Each measurement is a fresh process, from its start to its end: ``layered-lr run --max-steps 1`` on 64 images with 64 to
test on, against a script that imports the framework, builds the same MobileNetV2 and its optimizer, makes one step on
the same images and evaluates once. What compiling takes stands in rows of its own: the first step beyond a later one,
as ``Result`` has them.
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


def seconds(words: list[str]) -> float:
    """Of a whole process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    taken = time.perf_counter() - began
    if done.returncode:
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
        size, backends = (8, BACKENDS[:1]) if quick else (64, BACKENDS)
        turns: dict[str, Callable[[], float]] = {}
        missing: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            data = str(_images(Path(folder), size))
            options = ["--max-steps", "1", "--batch-size", str(size), "--no-progress"]
            for backend in backends:
                command = ["-m", "layered_lr", "run", "--data", data, "--backend", backend, *options]
                script = ["-m", "benchmarks.opponents.first_step", backend, data]
                turns[f"layered-lr run, {backend}"] = lambda command=command: seconds(command)  # type: ignore[misc]
                turns[f"script by hand, {backend}"] = lambda script=script: seconds(script)  # type: ignore[misc]
            taken = alternated(turns, rounds, warm_up=0 if quick else 1, say=say)
            missing |= taken.failed
            series = {
                name: Series(name, "start to end of one step", "s", tuple(values))
                for name, values in taken.values.items()
            }
            job = Job(data, size, size, batch_size=size)
            compiling = []
            for backend in backends:
                try:
                    compiling.append(_compiling(backend, job, 1 if quick else min(rounds, 3)))
                except WorkerError as error:
                    missing[f"first step of {backend}"] = one_line(error)
        pairs = [(f"layered-lr run, {backend}", f"script by hand, {backend}") for backend in BACKENDS]
        ratios = [ratio(series[a], series[b], _TARGET) for a, b in pairs if a in series and b in series]
        return Report(
            self.name,
            self.question,
            series=(*series.values(), *compiling),
            ratios=tuple(ratios),
            missing=missing,
            notes=(f"MobileNetV2, one step of {size} images of 32x32 and one evaluation of as many.",),
        )


def _compiling(backend: str, job: Job, rounds: int) -> Series:
    """The first step beyond a later one, each in a fresh process."""
    values = []
    for _ in range(rounds):
        settings = {"job": job.to_dict(), "backend": backend}
        with Worker("benchmarks.startup:FirstStep", settings) as worker:
            values.append(float(worker.call("beyond").value))
    return Series(backend, "first step beyond a later one", "s", tuple(values), note="compiles" * ("graph" in backend))


class FirstStep:
    """``ll.run``'s first step; arguments as of ``product.Opponent``."""

    def __init__(self, job: dict[str, Any], backend: str) -> None:
        from benchmarks.opponents.product import Opponent

        self.opponent = Opponent(job, backend)

    def beyond(self) -> float:
        """Seconds of the first step beyond the mean of the next three."""
        result = self.opponent.run(epochs=4)
        return result.first_step_seconds - result.seconds_per_step


def _images(folder: Path, size: int) -> Path:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8), np.arange(size) % 10
    np.savez(folder / "images.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return folder / "images.npz"


BENCHMARK = Startup()

if __name__ == "__main__":
    main(BENCHMARK)
