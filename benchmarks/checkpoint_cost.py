"""What checkpoints cost: MobileNetV2 for 100 updates, with a checkpoint at the end of them and without, in turn.

Each figure is the median of the rounds; a round is one run of each. The share is what one checkpoint adds to the time
of 100 updates: a run with checkpoints writes two, one at its start and one at its end.

    python -m benchmarks.checkpoint_cost [--backend torch-eager] [--rounds 5] [--steps 100] [--json cost.json]

Target (issue 6): below 2 %. Reached: see README, "Measured".
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import layered_lr as ll

SPEC = ll.Spec(ll.SGD(0.01, momentum=0.9), [ll.Group("features", lr_scale=0.1)])


def seconds(backend: str, steps: int, **options: Any) -> float:
    """Of one run: its set-up is the same with and without checkpoints."""
    began = time.perf_counter()
    ll.run(SPEC, backend, max_steps=steps, batch_size=64, progress=False, **options)
    return time.perf_counter() - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch-eager")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json")
    asked = parser.parse_args()
    plain, kept = [], []
    for _ in range(asked.rounds + 1):  # the first one warms up
        plain.append(seconds(asked.backend, asked.steps))
        with tempfile.TemporaryDirectory() as folder:
            every = f"{asked.steps} steps"
            kept.append(
                seconds(asked.backend, asked.steps, checkpoint_dir=Path(folder) / "run", checkpoint_every=every)
            )
    without, along = statistics.median(plain[1:]), statistics.median(kept[1:])
    share = (along - without) / 2 / without  # one at the start, one at the end
    print(
        f"{asked.backend}: {asked.steps} updates {without:.2f} s, with two checkpoints {along:.2f} s: {share:.1%} each"
    )
    if asked.json:
        Path(asked.json).write_text(json.dumps({"plain": plain[1:], "kept": kept[1:], "share": share}, indent=1))


if __name__ == "__main__":
    main()
