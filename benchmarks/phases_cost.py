"""What phases cost: the time of a step with a frozen backbone, and how thirty phases let the process grow.

    python -m benchmarks.phases_cost [--backends torch-eager,oneflow-eager,oneflow-graph] [--phases 30] [--json FILE]

MobileNetV2 at batch 32, 32x32. Each backend is in a process of its own. *Frozen* is the median of 10 steps of a session
that trains the head alone, over that of one that trains everything. *Growth* is the resident memory after thirty phases
of two steps that freeze now these layers, now those, beyond that after the first phase, and beyond that of a run
without phases.

Targets (issue 6): a step with a frozen backbone below half of a full one on torch and in OneFlow eager; growth below
300 MB. Reached: see README, "Measured".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.registry import load_backend
from layered_lr.timeline import open_session

GROUPS = [ll.Group(f"features.{number}") for number in range(19)] + [ll.Group("classifier")]
OPTIMIZER = ll.SGD(1e-3, momentum=0.9)


def megabytes() -> float:
    """Resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def opened(backend: Any, spec: ll.Spec, steps: int) -> Any:
    """A session on a new MobileNetV2."""
    model = backend.build("mobilenet_v2", 10, 0.0, 0)
    return open_session(backend, ll.resolve(spec, model, steps), model, 10)


def step(session: Any, rng: np.random.Generator) -> float:
    """The seconds of one update."""
    images, labels = rng.standard_normal((32, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 32)
    began = time.perf_counter()
    session.losses([session.train_step(images, labels)])
    return time.perf_counter() - began


def median_step(backend: Any, *phases: ll.Phase) -> float:
    """Of 10 steps, after two to warm up."""
    session, rng = opened(backend, ll.Spec(OPTIMIZER, GROUPS, phases=phases), 100), np.random.default_rng(0)
    return statistics.median([step(session, rng) for _ in range(12)][2:])


def measured(name: str, phases: int) -> dict[str, float]:
    """In this process."""
    backend = load_backend(name, "cpu")
    one = ll.Phase(frozen=[f"features.{number}" for number in range(19)])
    rng = np.random.default_rng(0)
    timeline = [ll.Phase(2 * n, frozen=[f"features.{n % 19}", f"features.{(n + 7) % 19}"]) for n in range(1, phases)]
    session = opened(backend, ll.Spec(OPTIMIZER, GROUPS, phases=[*timeline, ll.Phase()]), 2 * phases)
    memory = []
    for at in range(2 * phases):
        step(session, rng)
        if at % 2:
            memory.append(megabytes())
    del session
    return {
        "first_phase_mb": memory[0],
        "last_phase_mb": memory[-1],
        "full_seconds": median_step(backend),
        "frozen_seconds": median_step(backend, one),
    }


def plain_megabytes(name: str) -> float:
    """Of a run without phases, in this process."""
    session, rng = opened(load_backend(name, "cpu"), ll.Spec(OPTIMIZER, GROUPS), 4), np.random.default_rng(0)
    for _ in range(4):
        step(session, rng)
    return megabytes()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="torch-eager,oneflow-eager,oneflow-graph")
    parser.add_argument("--phases", type=int, default=30)
    parser.add_argument("--json")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        kind, name = asked.worker
        print(json.dumps(plain_megabytes(name) if kind == "plain" else measured(name, asked.phases)), flush=True)
        return
    found = {}
    for name in asked.backends.split(","):
        command = [sys.executable, "-m", "benchmarks.phases_cost", "--phases", str(asked.phases), "--worker"]
        answers = [
            json.loads(subprocess.run([*command, kind, name], stdout=subprocess.PIPE, check=False).stdout)
            for kind in ("plain", "phases")
        ]
        found[name] = {"plain_mb": answers[0], **answers[1]}
        seen = found[name]
        print(
            f"{name}: a step with a frozen backbone takes {seen['frozen_seconds'] / seen['full_seconds']:.2f} of a "
            f"full one ({1e3 * seen['full_seconds']:.0f} ms); {asked.phases} phases: "
            f"{seen['last_phase_mb'] - seen['first_phase_mb']:+.0f} MB over the first one, "
            f"{seen['last_phase_mb'] - seen['plain_mb']:+.0f} MB over a run without phases",
            flush=True,
        )
    if asked.json:
        Path(asked.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
