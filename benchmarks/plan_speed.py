"""How long does a plan take? The whole table of 10^6 steps x 60 groups, and one step's rates in a running loop.

    python -m benchmarks.plan_speed [--rounds 5] [--quick]

Asked of 60 groups that share one schedule and of 60 groups with a schedule each, and beside it torch's own schedulers
stepping the same 60 param groups (CosineAnnealingLR for the shared one, LambdaLR with 60 functions for the distinct
ones), where torch is installed. Each round is on a plan made anew, after one round to warm up. Peak memory is that of a
process of its own which makes the table once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import peak_megabytes
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.worker import Worker

STEPS, GROUPS, LOOP_STEPS, TORCH_STEPS = 10**6, 60, 20_000, 1000
NAMES = [(f"layer{number}.weight", (1,)) for number in range(GROUPS)]
KINDS = ("shared", "distinct")


def plan_of(kind: str, steps: int = STEPS) -> ll.Plan:
    """60 groups, each at 0.9 of the one after it, under one cosine or under 60 of different lengths."""
    groups = [
        ll.Group(
            f"layer{number}",
            lr_scale=0.9 ** (GROUPS - 1 - number),
            schedule=ll.CosineAnnealingLR(steps - number) if kind == "distinct" else None,
        )
        for number in range(GROUPS)
    ]
    return ll.resolve(ll.Spec(ll.SGD(0.1), groups, ll.CosineAnnealingLR(steps)), NAMES, steps)


def table_seconds(kind: str, steps: int = STEPS) -> float:
    """The whole table, the first time a plan is asked."""
    plan = plan_of(kind, steps)
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


def _cosine(length: int) -> Callable[[int], float]:
    return lambda step: (1 + math.cos(math.pi * step / length)) / 2


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
        cosines = [_cosine(STEPS - number) for number in range(GROUPS)]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosines)
    optimizer.step()  # else the scheduler warns
    start = time.perf_counter()
    for _ in range(TORCH_STEPS):
        scheduler.step()
    return (time.perf_counter() - start) / TORCH_STEPS * 1e6


class Table:
    """A process of its own, which makes one table."""

    def peak(self, kind: str, steps: int) -> float:
        """MB at most, the interpreter and NumPy included."""
        plan_of(kind, steps).table()
        return peak_megabytes()


class PlanSpeed:
    """The plan's table, and a step's rates."""

    name = "plan_speed"
    question = "How long do the rates of 10^6 steps x 60 groups take, and one step's rates in a running loop?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Both kinds, plan and torch in turn."""
        series: list[Series] = []
        ratios: list[Ratio] = []
        missing: dict[str, str] = {}
        steps = STEPS // 100 if quick else STEPS
        for kind in KINDS:
            turns: dict[str, Callable[[], float]] = {
                "table": lambda kind=kind: table_seconds(kind, steps),  # type: ignore[misc]
                "plan": lambda kind=kind: step_microseconds(kind),  # type: ignore[misc]
                "torch": lambda kind=kind: torch_microseconds(kind),  # type: ignore[misc]
            }
            taken = alternated(turns, rounds, say=say)
            missing |= {f"{name}, {kind}": why for name, why in taken.failed.items()}
            series.append(_series(kind, "whole table", "s", taken.values["table"], Target(1)))
            ours = _series(f"plan, {kind}", "one step's rates", "µs", taken.values["plan"], Target(20))
            series.append(ours)
            if "torch" in taken.values:
                theirs = _series(f"torch's scheduler, {kind}", "one step's rates", "µs", taken.values["torch"])
                series.append(theirs)
                ratios.append(ratio(ours, theirs))
            with Worker("benchmarks.plan_speed:Table", {}) as worker:
                peak = float(worker.call("peak", kind=kind, steps=steps).value)
            series.append(_series(kind, "peak memory of the table", "MB", [peak], Target(1000)))
        return Report(
            self.name,
            self.question,
            series=tuple(series),
            ratios=tuple(ratios),
            missing=missing,
            notes=("60 groups, a cosine each; shared: one for all, distinct: each of its own length.",),
        )


def _series(name: str, quantity: str, unit: str, rounds: list[float], target: Target | None = None) -> Series:
    return Series(name, quantity, unit, tuple(rounds), target)


BENCHMARK = PlanSpeed()

if __name__ == "__main__":
    main(BENCHMARK)
