"""What does a checkpoint cost? MobileNetV2 for 50 updates, with checkpoints and without, in turn.

    python -m benchmarks.checkpoint_cost [--rounds 5] [--quick]

The share is what one checkpoint adds to the time of 100 updates: a run with checkpoints writes two, one at its start
and one at its end, in half of that time.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated

SPEC = ll.Spec(ll.SGD(0.01, momentum=0.9), [ll.Group("features", lr_scale=0.1)])
_PLAIN, _KEPT = "50 updates", "50 updates and 2 checkpoints"


def seconds(steps: int, **options: Any) -> float:
    """Of one run: its set-up is the same with and without checkpoints."""
    began = time.perf_counter()
    ll.run(SPEC, "torch-eager", max_steps=steps, batch_size=64, progress=False, **options)
    return time.perf_counter() - began


def kept_seconds(steps: int, **options: Any) -> float:
    """With two checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        there = ll.Checkpoints(Path(folder) / "run", every=f"{steps} steps")
        return seconds(steps, checkpoints=there, **options)


class CheckpointCost:
    """With and without."""

    name = "checkpoint_cost"
    question = "What does a checkpoint every 100 updates cost?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Both in turn, in this process."""
        steps = 1 if quick else 50
        options: dict[str, Any] = {}
        if quick:
            options["model"] = "benchmarks.opponents.models:tiny_torch"
        turns = {
            _PLAIN: lambda: seconds(steps, **options),
            _KEPT: lambda: kept_seconds(steps, **options),
        }
        taken = alternated(turns, rounds, say=say)
        if taken.failed:
            return Report(self.name, self.question, missing=taken.failed)
        plain, kept = (Series(name, "time of a run", "s", tuple(taken.values[name])) for name in (_PLAIN, _KEPT))
        shares = tuple(100 * ((b - a) / 2) / (2 * a) for a, b in zip(plain.rounds, kept.rounds, strict=True))
        share = Series("a checkpoint", "share of the time of 100 updates", "%", shares, Target(2))
        return Report(
            self.name,
            self.question,
            series=(plain, kept, share),
            ratios=(ratio(kept, plain),),
            notes=("MobileNetV2, batch 64, torch-eager.",),
        )


BENCHMARK = CheckpointCost()

if __name__ == "__main__":
    main(BENCHMARK)
