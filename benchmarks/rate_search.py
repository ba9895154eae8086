"""What does a search for a rate cost? MobileNetV2, updates of ``ll.find_lr`` beside those of ``ll.run``, in turn.

    python -m benchmarks.rate_search [--rounds 5] [--quick]

The time of an update is the difference of two lengths, so that the set-up, the first update and the evaluation at the
end of a run count for neither.
"""

from __future__ import annotations

import math
import time
from typing import Any

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated

SPEC = ll.Spec(ll.SGD(0.01, momentum=0.9), [ll.Group("features", lr_scale=0.1)])
_RUN, _SEARCH = "an update of a run", "an update of a search"
_SHORT = 10


def run_seconds(steps: int, **options: Any) -> float:
    """Of one run."""
    began = time.perf_counter()
    ll.run(SPEC, max_steps=steps, batch_size=64, progress=False, **options)
    return time.perf_counter() - began


def search_seconds(steps: int, **options: Any) -> float:
    """Of one sweep, which never stops early."""
    began = time.perf_counter()
    said: dict[str, Any] = {"start": 1e-7, "end": 1e-3, "stop_factor": math.inf, "batch_size": 64, "progress": False}
    search = ll.find_lr(SPEC, steps=steps, **said, **options)
    assert len(search.lr) == steps
    return time.perf_counter() - began


class RateSearchCost:
    """A run and a search."""

    name = "rate_search"
    question = "What does an update of a search for a rate cost, beside one of a run?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Both in turn, in this process."""
        long = 2 * _SHORT if quick else 5 * _SHORT
        options: dict[str, Any] = {"model": "benchmarks.opponents.models:tiny_torch"} if quick else {}

        def each(seconds: Any) -> float:
            lasted = seconds(long, **options) - seconds(_SHORT, **options)
            return max(1e3 * float(lasted) / (long - _SHORT), 1e-6)

        turns = {_RUN: lambda: each(run_seconds), _SEARCH: lambda: each(search_seconds)}
        taken = alternated(turns, rounds, say=say)
        if taken.failed:
            return Report(self.name, self.question, missing=taken.failed)
        run, search = (Series(name, "time of an update", "ms", tuple(taken.values[name])) for name in (_RUN, _SEARCH))
        return Report(
            self.name,
            self.question,
            series=(run, search),
            ratios=(ratio(search, run, Target(1.1)),),
            notes=("MobileNetV2, batch 64, torch-eager.",),
        )


BENCHMARK = RateSearchCost()

if __name__ == "__main__":
    main(BENCHMARK)
