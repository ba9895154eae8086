"""The same spec on the four backends: torch eager, torch.compile, OneFlow eager, OneFlow Graph.

    python -m benchmarks.backends [--rounds 5] [--quick]

MobileNetV2 on the embedded digits at 3x32x32, batch 64, 6 epochs of 22 steps, the backbone at 0.1 of the head's rate; a
round is a seed, and the backends take turns at it, each in a process of its own. What is in the table:

- time of a step: the mean of a run's steps, its first one left out;
- time to 0.9: of all steps up to the end of the epoch after which the test accuracy is 0.9, without compiling;
- compile time: ``Result.compile_seconds``, in a process whose cache is empty, and in a second process;
- peak memory: of the process over its first run, imports included;
- largest difference of a parameter to torch-eager in float64, after 8 steps at a hundredth of the rate: in float64 it
  shows whether they do the same, in float32 what rounding does, to torch-eager's own run as well. At the full rate 8
  steps are chaotic in any dtype: an error of the last bit grows five-hundredfold at each. ``layered-lr compare`` knows.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import peak_megabytes
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated, one_line
from benchmarks.frame.worker import Worker, WorkerError

BACKENDS = ("torch-eager", "torch-compile", "oneflow-eager", "oneflow-graph")
SPEC = ll.Spec(
    ll.SGD(0.1, momentum=0.9, weight_decay=1e-4),
    [ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
)
CALM = replace(SPEC, optimizer=ll.SGD(0.001, momentum=0.9, weight_decay=1e-4))
GOOD = 0.9
_EPOCHS, _SAME_STEPS = 6, 8


class Trainer:
    """``ll.run`` with one backend.

    Args:
        backend: Its name.
        quick: A tiny model and few images.
    """

    def __init__(self, backend: str, quick: bool) -> None:
        self.options: dict[str, Any] = {"backend": backend, "progress": False, "device": "cpu"}
        if quick:
            from benchmarks.opponents.models import tiny_oneflow, tiny_torch, tiny_weights

            self.options["model"] = tiny_torch if backend.startswith("torch") else tiny_oneflow
            self.options |= {"data": _few_digits(), "initial_weights": tiny_weights(0)}
        self.epochs = 1 if quick else _EPOCHS

    def train(self, seed: int) -> dict[str, Any]:
        """A whole run: times, accuracies, memory."""
        result = ll.run(SPEC, **self.options, epochs=self.epochs, seed=seed)
        return {
            "step": result.seconds_per_step,
            "compiling": result.compile_seconds,
            "to_good": _seconds_to_good(result, self.epochs),
            "accuracy": float(result.accuracies[-1]),
            "peak": peak_megabytes(),
        }

    def compiling(self) -> float | None:
        """Seconds that compiling takes in this process; None where nothing is compiled."""
        return ll.run(SPEC, **self.options, max_steps=2).compile_seconds

    def parameters_after(self, steps: int, path: str, dtype: Any) -> None:
        """Write the parameters of the same run on every backend: dropout's masks are the same too."""
        result = ll.run(CALM, **self.options, max_steps=steps, precision=dtype)
        names = [parameter.name for parameter in result.plan.parameters]
        np.savez(path, **{name: result.weights[name] for name in names})


def _few_digits() -> ll.Dataset:
    whole = ll.load_dataset("digits")
    return ll.Dataset("few", whole.x_train[:192], whole.y_train[:192], whole.x_test[:64], whole.y_test[:64])


def _seconds_to_good(result: ll.Result, epochs: int) -> float | None:
    good = np.flatnonzero(result.accuracies >= GOOD)
    if not len(good):
        return None
    return (int(good[0]) + 1) * len(result.losses) // epochs * result.seconds_per_step


class Backends:
    """Four backends, one spec."""

    name = "backends"
    question = "The same spec on four backends: how fast, how good, how much memory, how equal?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """A seed a round; all four in turn."""
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            workers: dict[str, Worker] = {}
            for name in BACKENDS:
                try:
                    settings = {"backend": name, "quick": quick}
                    opened = Worker("benchmarks.backends:Trainer", settings, environment=_cached_in(Path(cache)))
                    workers[name] = stack.enter_context(opened)
                except WorkerError as error:
                    missing[name] = one_line(error)
            seeds = {name: itertools.count() for name in workers}
            turns = {
                name: lambda name=name: workers[name].call("train", seed=next(seeds[name])).value for name in workers
            }
            taken = alternated(turns, rounds, warm_up=0, say=say)
            missing |= taken.failed
            there = {name: worker for name, worker in workers.items() if name in taken.values}
            series = _series(taken.values)
            for more in (_differences, _second_processes):
                try:
                    series += more(there, Path(cache), quick)
                except WorkerError as error:
                    missing[f"what {more.__name__[1:]} measures"] = one_line(error)
        return Report(
            self.name,
            self.question,
            series=tuple(sorted(series, key=lambda of: BACKENDS.index(of.name))),
            ratios=tuple(_ratios(series)),
            missing=missing,
            notes=(
                f"MobileNetV2, the digits at 32x32, batch 64, {_EPOCHS} epochs of 22 steps; a round is a seed. "
                f"The time of a step leaves the first step of a run out. {_unreached(taken.values)}",
            ),
        )


def _unreached(values: Mapping[str, list[dict[str, Any]]]) -> str:
    found = {name: sum(run["to_good"] is None for run in runs) for name, runs in values.items()}
    said = ", ".join(f"{count} of {len(values[name])} on {name}" for name, count in found.items() if count)
    return f"Runs that did not come to {GOOD}, and are not in the time to it: {said or 'none'}."


def _series(values: Mapping[str, list[dict[str, Any]]]) -> list[Series]:
    found = []
    for name, runs in values.items():

        def add(quantity: str, unit: str, rounds: list[float], name: str = name) -> None:
            if rounds:
                found.append(Series(name, quantity, unit, tuple(rounds)))

        add("time of a step", "s", [run["step"] for run in runs])
        good = [run["to_good"] for run in runs if run["to_good"] is not None]
        add(f"time to {GOOD} of the test images, without compiling", "s", good)
        add("accuracy at the end", "", [run["accuracy"] for run in runs])
        add("peak memory", "MB", [runs[0]["peak"]])
        if runs[0]["compiling"] is not None:
            add("compile time, cache empty", "s", [runs[0]["compiling"]])
    return found


def _second_processes(workers: Mapping[str, Worker], cache: Path, quick: bool) -> list[Series]:
    found = []
    for name in sorted(workers.keys() & ({"oneflow-graph"} if quick else {"torch-compile", "oneflow-graph"})):
        settings = {"backend": name, "quick": quick}
        with Worker("benchmarks.backends:Trainer", settings, environment=_cached_in(cache)) as again:
            value = float(again.call("compiling").value)
        found.append(Series(name, "compile time, second process", "s", (value,)))
    return found


def _cached_in(folder: Path) -> dict[str, str]:
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder)}


def _differences(workers: Mapping[str, Worker], folder: Path, _: bool) -> list[Series]:
    found: list[Series] = []
    if "torch-eager" not in workers:
        return found
    exact: dict[str, Any] = {}
    for dtype in ("float64", "float32"):
        for name, worker in workers.items():
            path = folder / f"{name}-{dtype}.npz"
            worker.call("parameters_after", steps=_SAME_STEPS, path=str(path), dtype=dtype)
            with np.load(path) as file:
                arrays = dict(file)
            exact = exact or arrays  # torch-eager in float64 comes first
            largest = max(float(np.abs(arrays[key].astype(np.float64) - exact[key]).max()) for key in exact)
            quantity = f"largest difference of a parameter after {_SAME_STEPS} calm steps, {dtype}"
            found.append(Series(name, quantity, "", (largest,)))
    return found


def _ratios(series: list[Series]) -> list[Ratio]:
    steps = {of.name: of for of in series if of.quantity == "time of a step"}
    pairs = [
        ("torch-compile", "torch-eager", Target(0.85)),
        ("oneflow-eager", "torch-eager", None),
        ("oneflow-graph", "torch-eager", None),
        ("oneflow-graph", "oneflow-eager", None),
    ]
    return [ratio(steps[a], steps[b], target) for a, b, target in pairs if a in steps and b in steps]


BENCHMARK = Backends()

if __name__ == "__main__":
    main(BENCHMARK)
