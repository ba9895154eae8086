"""How long a plan takes: the whole table of 10^6 steps x 60 groups, and one step's rates in a running loop.

Asked of 60 groups that share one schedule and of 60 groups with a schedule each, and beside it torch's own schedulers
stepping the same 60 param groups (CosineAnnealingLR for the shared one, LambdaLR with 60 functions for the distinct
ones), where torch is installed. Each figure is the median of several rounds, each round on a plan made anew, after one
round to warm up. Peak memory is that of a process of its own which makes the table once.

Targets (issue 4): the table in less than 1 s and 1 GB, one step's rates in less than 20 microseconds.
Reached on 2 cores of an AMD EPYC (load 0.3), NumPy 1.26, torch 2.14: shared 0.27 s, 0.56 GB, 2.4 us (torch 46 us a
step); distinct 0.88 s, 0.53 GB, 4.5 us (torch 36 us a step).

    python benchmarks/plan_speed.py [--rounds 5] [--json plan_speed.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll

STEPS, GROUPS, LOOP_STEPS, TORCH_STEPS = 10**6, 60, 20_000, 1000
NAMES = [(f"layer{number}.weight", (1,)) for number in range(GROUPS)]
KINDS = ("shared", "distinct")


def plan_of(kind: str) -> ll.Plan:
    """60 groups, each at 0.9 of the one after it, under one cosine or under 60 of different lengths."""
    groups = [
        ll.Group(
            f"layer{number}",
            lr_scale=0.9 ** (GROUPS - 1 - number),
            schedule=ll.CosineAnnealingLR(STEPS - number) if kind == "distinct" else None,
        )
        for number in range(GROUPS)
    ]
    return ll.resolve(ll.Spec(ll.SGD(0.1), groups, ll.CosineAnnealingLR(STEPS)), NAMES, STEPS)


def table_seconds(kind: str) -> float:
    """The whole table, the first time a plan is asked."""
    plan = plan_of(kind)
    start = time.perf_counter()
    plan.table()
    return time.perf_counter() - start


def step_microseconds(kind: str) -> float:
    """One step's rates, step after step, as a training loop asks for them."""
    plan = plan_of(kind)
    start = time.perf_counter()
    for step in range(LOOP_STEPS):
        plan.rates(step)
    return (time.perf_counter() - start) / LOOP_STEPS * 1e6


def torch_microseconds(kind: str) -> float:
    """torch's scheduler doing the same step, without the optimizer's update."""
    import torch

    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 * 0.9 ** (GROUPS - 1 - number)}
        for number in range(GROUPS)
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler: Any
    if kind == "shared":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    else:
        cosines = [
            lambda step, length=STEPS - number: (1 + math.cos(math.pi * step / length)) / 2 for number in range(GROUPS)
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosines)
    optimizer.step()  # else the scheduler warns
    start = time.perf_counter()
    for _ in range(TORCH_STEPS):
        scheduler.step()
    return (time.perf_counter() - start) / TORCH_STEPS * 1e6


def peak_gigabytes(kind: str) -> float:
    """Of a process that makes one table, the interpreter and NumPy included."""
    done = subprocess.run([sys.executable, __file__, "--peak", kind], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _own_peak_gigabytes() -> float:
    """Linux lets a child begin with its parent's ru_maxrss, so it is asked for VmHWM, which is the process's own."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def medians(rounds: int) -> dict[str, dict[str, float]]:
    """Every figure for both kinds; the rounds of plan and torch take turns."""
    try:
        import torch  # noqa: F401

        with_torch = True
    except ImportError:
        with_torch = False
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        measures = {"table_seconds": table_seconds, "step_microseconds": step_microseconds}
        if with_torch:
            measures["torch_step_microseconds"] = torch_microseconds
        taken: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(rounds + 1):
            for name, measure in measures.items():
                taken[name].append(measure(kind))
        found[kind] = {name: statistics.median(values[1:]) for name, values in taken.items()}
        found[kind]["peak_gigabytes"] = peak_gigabytes(kind)
    return found


def hardware() -> dict[str, Any]:
    """What the figures were taken on."""
    about = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in about.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    parser.add_argument("--peak", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        plan_of(options.peak).table()
        print(_own_peak_gigabytes())
        return
    machine = hardware()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    figures = medians(options.rounds)
    print(f"{STEPS:,} steps x {GROUPS} groups; medians of {options.rounds} rounds")
    for kind, values in figures.items():
        by_torch = values.get("torch_step_microseconds")
        beside = f"; torch's scheduler {by_torch:.1f} us a step" if by_torch else ""
        print(
            f"{kind:9} whole table {values['table_seconds']:.2f} s, peak {values['peak_gigabytes']:.2f} GB; "
            f"one step's rates {values['step_microseconds']:.1f} us{beside}"
        )
    if options.json:
        report = {"hardware": machine, "steps": STEPS, "groups": GROUPS, "rounds": options.rounds, "figures": figures}
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
