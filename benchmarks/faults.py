"""Does a run survive ``kill -9``? At random moments, on each backend, resumed and compared bit by bit.

Each trial is a process of its own that first resumes the run that the one before it was killed in, and then begins a
run with a checkpoint after every update, in which it is killed in turn; moments fall anywhere from the first line of
the run's code to its end, within checkpoints too. A trial is good if the resumed run's losses, rates, accuracies,
weights and moving average are those of a run that nobody disturbed.

    python -m benchmarks.faults [--rounds 50] [--quick]

A round is a trial.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Report, Series, Target
from benchmarks.frame.worker import ROOT

BACKENDS = ("torch-eager", "oneflow-eager", "oneflow-graph")
SPEC = ll.Spec(
    ll.AdamW(0.01, weight_decay=0.1),
    [ll.Group("head", lr_scale=2.0, schedule=ll.ReduceLROnPlateau(patience=0))],
    ll.CosineDecay(warmup_steps=3),
    clip_grad_norm=1.0,
    phases=ll.phases.head_first("5 steps", "head"),
)


def _net(framework: Any) -> Any:
    nn = framework.nn
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten(1))
    model.add_module("body", nn.Linear(12, 8))
    model.add_module("norm", nn.BatchNorm1d(8))
    model.add_module("head", nn.Linear(8, 3))
    return model


def torch_net() -> Any:
    """A small model of torch's."""
    import torch

    return _net(torch)


def oneflow_net() -> Any:
    """A small model of OneFlow's."""
    import oneflow

    return _net(oneflow)


def _options(backend: str, folder: Path) -> dict[str, Any]:
    model = "torch_net" if backend.startswith("torch") else "oneflow_net"
    common = {"data": str(folder / "data.npz"), "batch_size": 8, "epochs": 4, "device": "cpu", "progress": False}
    return {**common, "backend": backend, "model": f"benchmarks.faults:{model}", "ema_decay": 0.9}


def worker(backend: str, folder: Path, trial: int) -> None:
    """Resume trial ``trial - 1``, then run trial ``trial``; 0 runs undisturbed and resumes nothing."""
    options = _options(backend, folder)
    if trial == 0:
        began = time.perf_counter()
        result = ll.run(SPEC, **options, checkpoints=ll.Checkpoints(folder / "0", every=1))
        result.save(folder / "0.npz")
        print(f"seconds {time.perf_counter() - began}", flush=True)
        return
    before = folder / str(trial - 1)
    if trial > 1:
        resumed = (before / "recipe.toml").exists()
        result = ll.resume(before, trust=True) if resumed else ll.run(SPEC, **options)
        result.save(folder / f"{trial - 1}.npz")
    print("begin", flush=True)
    ll.run(SPEC, **options, checkpoints=ll.Checkpoints(folder / str(trial), every=1))


def _start(backend: str, folder: Path, trial: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.faults", "--worker", backend, str(folder), str(trial)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)


def same(one: ll.Result, other: ll.Result) -> bool:
    """Whether two runs are the same bit by bit."""
    series = all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("losses", "accuracies", "ema_accuracies"))
    tables = ("weights", "ema_weights", "rates")
    return series and all(
        np.array_equal(getattr(one, name)[key], getattr(other, name)[key])
        for name in tables
        for key in getattr(one, name)
    )


def survived(backend: str, trials: int, folder: Path, rng: np.random.Generator) -> int:
    """How many of the trials ended bitwise equal to the undisturbed run."""
    data = rng.standard_normal((40, 3, 2, 2)).astype(np.float32)
    labels = np.arange(40) % 3
    np.savez(folder / "data.npz", x_train=data, y_train=labels, x_test=data[:9], y_test=labels[:9])
    answer, _ = _start(backend, folder, 0).communicate()
    seconds = float(answer.split()[-1])
    whole = ll.Result.load(folder / "0.npz")
    for trial in range(1, trials + 2):
        process = _start(backend, folder, trial)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("begin"):
                break
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.communicate()
    found = [folder / f"{trial}.npz" for trial in range(1, trials + 1)]
    return sum(path.exists() and same(ll.Result.load(path), whole) for path in found)


class Faults:
    """Killed and resumed."""

    name = "faults"
    question = "Does a run that is killed at a random moment and resumed end bitwise as if nobody had disturbed it?"
    rounds = 10

    def run(self, rounds: int, quick: bool) -> Report:
        """A round is a trial; a quick run has torch alone."""
        found = []
        for backend in BACKENDS[:1] if quick else BACKENDS:
            with tempfile.TemporaryDirectory() as folder:
                good = survived(backend, rounds, Path(folder), np.random.default_rng(0))
            say(f"{backend}: {good} of {rounds} resumed bitwise")
            target = Target(rounds, at_most=False)
            found.append(Series(backend, f"resumed bitwise, of {rounds}", "trials", (float(good),), target))
        return Report(
            self.name,
            self.question,
            series=tuple(found),
            notes=("A tiny model, AdamW, a checkpoint after every update; moments fall within checkpoints too.",),
        )


BENCHMARK = Faults()

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(BENCHMARK)
