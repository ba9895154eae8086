"""What do phases cost? The time of a step with a frozen backbone, and how thirty phases let the process grow.

    python -m benchmarks.phases_cost [--rounds 3] [--quick]

MobileNetV2 at batch 32, 32x32. Each backend is in a process of its own, in turn. *Frozen* is a step of a session that
trains the head alone, over one of a session that trains everything. *Growth* is the resident memory after thirty phases
of two steps that freeze now these layers, now those, beyond that after the first phase, and beyond that of a run
without phases. The sessions that it opens are below the public API: phases of two steps need no data.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import resident_megabytes
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.worker import Worker, WorkerError
from layered_lr.backend.loading import load_backend
from layered_lr.backend.phased_session import open_session

BACKENDS = ("torch-eager", "oneflow-eager", "oneflow-graph")
GROUPS = [ll.Group(f"features.{number}") for number in range(19)] + [ll.Group("classifier")]
OPTIMIZER = ll.SGD(1e-3, momentum=0.9)


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


class Phases:
    """Sessions of one backend.

    Args:
        backend: Its name.
        steps: That make a median.
    """

    def __init__(self, backend: str, steps: int) -> None:
        self.backend, self.steps = load_backend(backend, "cpu"), steps
        self.sessions: dict[bool, Any] = {}

    def step_seconds(self, frozen: bool) -> float:
        """The median of some steps, with a frozen backbone or with none, after two to warm up at first."""
        rng, warm_up = np.random.default_rng(0), 0
        backbone = tuple(f"features.{number}" for number in range(19))
        phases = (ll.Phase(frozen=backbone),) if frozen else ()
        if frozen not in self.sessions:
            self.sessions = {frozen: opened(self.backend, ll.Spec(OPTIMIZER, GROUPS, phases=phases), 1000)}
            warm_up = 2
        session = self.sessions[frozen]
        return statistics.median([step(session, rng) for _ in range(self.steps + warm_up)][warm_up:])

    def growth(self, phases: int) -> list[float]:
        """Resident MB after each of so many phases; 0 is a run without any."""
        rng = np.random.default_rng(0)
        ends = range(1, phases)
        timeline = [ll.Phase(2 * n, frozen=(f"features.{n % 19}", f"features.{(n + 7) % 19}")) for n in ends]
        spec = ll.Spec(OPTIMIZER, GROUPS, phases=[*timeline, ll.Phase()] if phases else ())
        session, memory = opened(self.backend, spec, max(2 * phases, 4)), []
        for at in range(max(2 * phases, 4)):
            step(session, rng)
            if at % 2:
                memory.append(resident_megabytes())
        return memory


class PhasesCost:
    """Frozen steps, and growth."""

    name = "phases_cost"
    question = "What does a step with a frozen backbone cost, and how do thirty phases let the process grow?"
    rounds = 3

    def run(self, rounds: int, quick: bool) -> Report:
        """Backend by backend; a quick run has torch alone."""
        series: list[Series] = []
        ratios, missing = [], {}
        for name in BACKENDS[:1] if quick else BACKENDS:
            say(name)
            try:
                with _worker(name, 1) if quick else nullcontext() as shared:
                    of = _steps(name, rounds, 1 if quick else 4, shared)
                    grown = _growth(name, 3 if quick else 30, shared)
            except WorkerError as error:
                missing[name] = str(error)
                continue
            ratios.append(ratio(of[0], of[1], None if name == "oneflow-graph" else Target(0.5)))
            series += [*of, *grown]
        notes = ("MobileNetV2, batch 32, 32x32.",)
        return Report(self.name, self.question, tuple(series), tuple(ratios), (), missing, notes)


def _worker(backend: str, steps: int) -> Worker:
    return Worker("benchmarks.phases_cost:Phases", {"backend": backend, "steps": steps})


def _steps(name: str, rounds: int, steps: int, shared: Worker | None) -> tuple[Series, Series]:
    """A process for each of the two; or one for all, where only a test looks."""
    kinds = {"frozen": True, "everything": False}
    with (
        nullcontext(shared) if shared else _worker(name, steps) as one,
        nullcontext(shared) if shared else _worker(name, steps) as other,
    ):
        workers = {"frozen": one, "everything": other}
        turns = {
            kind: lambda kind=kind: float(workers[kind].call("step_seconds", frozen=kinds[kind]).value)
            for kind in kinds
        }
        taken = alternated(turns, rounds)
    for kind, why in taken.failed.items():
        raise WorkerError(f"{kind}: {why}")
    frozen, everything = (Series(f"{name}, {kind}", "time of a step", "s", tuple(taken.values[kind])) for kind in kinds)
    return frozen, everything


def _growth(name: str, phases: int, shared: Worker | None) -> list[Series]:
    memory = []
    for count in (phases, 0):
        with nullcontext(shared) if shared else _worker(name, 1) as worker:
            memory.append(worker.call("growth", phases=count).value)
    (first, *_, last), plain = memory[0], memory[1][-1]
    return [
        Series(name, f"growth of {phases} phases over the first", "MB", (last - first,), Target(300)),
        Series(name, f"growth of {phases} phases over a run without", "MB", (last - plain,)),
    ]


BENCHMARK = PhasesCost()

if __name__ == "__main__":
    main(BENCHMARK)
