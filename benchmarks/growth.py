"""How do time and memory grow with steps, groups and parameters?

    python -m benchmarks.growth [--rounds 3] [--quick]

- steps 10^2 to 10^6: ``ll.run`` of an empty model, the whole call;
- groups 1 to 1000: ``ll.run`` of a model of 1000 small layers, a group for so many of them, 20 steps;
- parameters 10^4 to 10^8: ``ll.run`` of one wide layer, 5 steps, as far as memory goes.

Every point is a process of its own, which runs once to warm up. Memory is what the process takes at most beyond what it
had before. The slope is that of the last three points in the log-log picture, where constant costs no longer count.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import peak_megabytes, reset_peak, resident_megabytes
from benchmarks.frame.report import Curve, Report, Target
from benchmarks.frame.rounds import one_line
from benchmarks.frame.worker import Worker, WorkerError

LINEAR = Target(1.1)  # 1, and what noise does to a line through three points
_LAYERS = 1000
_WIDTH = 100
_BYTES_A_PARAMETER = 40  # weights, gradients, momentum, start, result: measured, with room


class Runs:
    """``ll.run`` at one size."""

    def measure(self, along: str, size: int) -> dict[str, float]:
        """Seconds and MB of one run, after a small one."""
        run = {"steps": _steps, "groups": _groups, "parameters": _parameters}[along]
        run(1 if along == "groups" else min(size, 100))
        before = resident_megabytes()
        reset_peak()
        began = time.perf_counter()
        run(size)
        return {"seconds": time.perf_counter() - began, "megabytes": max(peak_megabytes() - before, 0.1)}


def _run(model: Any, features: int, groups: list[ll.Group], steps: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((100, *shape)).astype(np.float32)
    labels = np.arange(100) % 2
    data = ll.Dataset("noise", images, labels, images[:4], labels[:4])
    spec = ll.Spec(ll.SGD(1e-3, momentum=0.9), groups, ll.CosineAnnealingLR(steps))
    epochs = -(-steps // 100)
    ll.run(spec, "torch-eager", model, data, batch_size=1, epochs=epochs, max_steps=steps, device="cpu", progress=False)


def _steps(size: int) -> None:
    from benchmarks.overhead import BATCH, SPEC, empty_model, pixels

    ll.run(
        SPEC, "torch-eager", empty_model, pixels(100_000), batch_size=BATCH, epochs=99, max_steps=size, device="cpu",
        progress=False,
    )  # fmt: skip


def _groups(size: int) -> None:
    import torch

    def model() -> Any:
        layers = torch.nn.Sequential(torch.nn.Flatten(1))
        for number in range(_LAYERS):
            layers.add_module(f"layer{number}", torch.nn.Linear(2, 2, bias=False))
        return layers

    groups = [ll.Group(f"layer{number}", lr_scale=1 - number / 2000) for number in range(size - 1)]
    _run(model, 2, groups, 20, (2, 1, 1))


def _parameters(size: int) -> None:
    import torch

    def model() -> Any:
        layers = torch.nn.Sequential(torch.nn.Flatten(1))
        layers.add_module("wide", torch.nn.Linear(_WIDTH, max(size // _WIDTH, 2), bias=False))
        layers.add_module("head", Narrow())
        return layers

    class Narrow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(2))

        def forward(self, wide: Any) -> Any:
            half = wide.shape[1] // 2
            return torch.stack([wide[:, :half].mean(1), wide[:, half:].mean(1)], 1) + self.shift

    _run(model, _WIDTH, [ll.Group("wide", lr_scale=0.1)], 5, (_WIDTH, 1, 1))


class Growth:
    """Time and memory over size."""

    name = "growth"
    question = "How do time and peak memory of ll.run grow with steps, groups and parameters?"
    rounds = 3

    def run(self, rounds: int, quick: bool) -> Report:
        """Point by point; the largest ones once."""
        sizes = {
            "steps": (10, 20) if quick else (10**2, 10**3, 10**4, 10**5, 10**6),
            "groups": (1, 2) if quick else (1, 10, 100, 300, 1000),
            "parameters": (10**3, 10**4) if quick else (10**4, 10**5, 10**6, 10**7, 10**8),
        }
        few = {"steps": (10**5, 10**6), "groups": (), "parameters": (10**8,)}  # the long ones once
        missing: dict[str, str] = {}
        curves = []
        with _worker() if quick else nullcontext() as shared:
            for along, asked in sizes.items():
                there = [size for size in asked if along != "parameters" or _fits(size)]
                for size in asked[len(there) :]:
                    missing[f"{size:.0e} {along}"] = "more memory than is free here"
                points = {}
                for size in there:
                    try:
                        points[size] = _point(along, size, 1 if size in few[along] else rounds, shared)
                    except WorkerError as error:
                        missing[f"{size:.0e} {along}"] = one_line(error)
                xs = tuple(float(size) for size in points)
                for quantity, unit, key in (("time", "s", "seconds"), ("peak memory", "MB", "megabytes")):
                    taken = tuple(tuple(found[key] for found in points[size]) for size in points)
                    curves.append(Curve("ll.run, torch-eager", along, quantity, unit, xs, taken, LINEAR))
        return Report(
            self.name,
            self.question,
            curves=tuple(curves),
            missing=missing,
            notes=(
                "Linear is 1; the target leaves 0.1 for noise. Small sizes show what a run costs at all: set-up, "
                "evaluation, the result.",
            ),
        )


def _worker() -> Worker:
    return Worker("benchmarks.growth:Runs", {})


def _point(along: str, size: int, rounds: int, shared: Worker | None) -> list[dict[str, float]]:
    """Measure one size, each round in a process of its own, or all in a shared one where only a test looks."""
    found = []
    for _ in range(rounds):
        with nullcontext(shared) if shared else _worker() as worker:
            found.append(worker.call("measure", along=along, size=size).value)
    say(f"{size} {along}: {found}")
    return found


def _fits(size: int) -> bool:
    text = Path("/proc/meminfo")
    if not text.exists():
        return size <= 10**7
    lines = text.read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return size * _BYTES_A_PARAMETER < free


BENCHMARK = Growth()

if __name__ == "__main__":
    main(BENCHMARK)
