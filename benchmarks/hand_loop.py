"""Is ``ll.run`` as fast as the best loop that we can write by hand? On torch, on OneFlow eager, in OneFlow's Graph.

    python -m benchmarks.hand_loop [--rounds 7] [--quick] [--data FILE.npz]

MobileNetV2, batch 64, 32x32, crop and flip, SGD with momentum, the backbone at a tenth of the head's rate. Each is a
process of its own; ``benchmarks/opponents`` holds the loops, ``epochs`` there says how the time is taken. In OneFlow
the loop by hand has the same MobileNetV2 as ``ll.run``, whose convolutions are matrix products, so that the loops are
compared; beside it the same loop with flowvision's modules as they come, for five steps.
"""

from __future__ import annotations

from benchmarks.frame import images
from benchmarks.frame.command import main
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.opponents.epochs import Entrant, race
from benchmarks.opponents.job import Job

_LIMIT = Target(1.01)
_TORCH = "benchmarks.opponents.torch_loop:Opponent"
_ONEFLOW = "benchmarks.opponents.oneflow_loop:Opponent"
_PRODUCT = "benchmarks.opponents.product:Opponent"


class HandLoop:
    """``ll.run`` against hand-written loops."""

    name = "hand_loop"
    question = "How long is an epoch of ll.run beside the best hand-written loop in the same framework?"
    rounds = 7

    def run(self, rounds: int, quick: bool) -> Report:
        """Torch first, then OneFlow."""
        data = images.source()
        torch_job, flow_job, short_job = Job(data, 62 * 64), Job(data, 40 * 64), Job(data, 5 * 64)
        if quick:
            torch_job = flow_job = short_job = Job("digits", 2 * 8, 8, model="tiny", batch_size=8)
        entrants = {
            "ll.run, torch-eager": Entrant(_PRODUCT, {"job": torch_job.to_dict(), "backend": "torch-eager"}),
            "torch by hand": Entrant(_TORCH, {"job": torch_job.to_dict()}),
            "torch by hand, glibc as it comes": Entrant(
                _TORCH,
                {"job": torch_job.to_dict(), "keep_memory": False},
                note="gives freed memory back to the kernel at each step",
            ),
        }
        series, missing = race(entrants, rounds, torch_job.steps_per_epoch, warm=not quick)
        for mode in ("eager", "graph"):
            name = f"oneflow-{mode}"
            by_hand = {"graph": mode == "graph"}
            pair = {
                f"ll.run, {name}": Entrant(_PRODUCT, {"job": flow_job.to_dict(), "backend": name}),
                f"{name} by hand": Entrant(_ONEFLOW, {"job": flow_job.to_dict(), **by_hand}),
            }
            found, gone = race(pair, min(rounds, 5), flow_job.steps_per_epoch, warm=not quick)
            as_it_comes = {
                f"{name} by hand, flowvision's modules": Entrant(
                    _ONEFLOW,
                    {"job": short_job.to_dict(), **by_hand, "flat": False},
                    note=f"an epoch of {short_job.steps_per_epoch} steps",
                )
            }
            slow, away = race(as_it_comes, min(rounds, 3), short_job.steps_per_epoch, warm=not quick)
            series, missing = series | found | slow, missing | gone | away
        return Report(
            self.name,
            self.question,
            series=tuple(series.values()),
            ratios=tuple(_ratios(series)),
            missing=missing,
            notes=(
                f"MobileNetV2, batch 64, {images.described(torch_job.data)}, crop and flip, two groups; an epoch is "
                f"{torch_job.steps_per_epoch} steps on torch and {flow_job.steps_per_epoch} on OneFlow.",
            ),
        )


def _ratios(series: dict[str, Series]) -> list[Ratio]:
    pairs = [
        ("ll.run, torch-eager", "torch by hand", _LIMIT),
        ("ll.run, torch-eager", "torch by hand, glibc as it comes", None),
        ("ll.run, oneflow-eager", "oneflow-eager by hand", _LIMIT),
        ("ll.run, oneflow-graph", "oneflow-graph by hand", _LIMIT),
    ]
    there = [(a, b, target) for a, b, target in pairs if a in series and b in series]
    return [ratio(series[one], series[other], target) for one, other, target in there]


BENCHMARK = HandLoop()

if __name__ == "__main__":
    main(BENCHMARK)
