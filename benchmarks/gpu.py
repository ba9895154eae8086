"""On a GPU: ``ll.run(device="cuda")`` beside a loop written by hand, and beside Lightning where it is installed.

    python -m benchmarks.gpu [--rounds 5] [--quick] [--data FILE.npz]

Where torch finds no GPU it says 'skipped: no GPU', and that is all. The loop by hand keeps the images on the device,
cuts and mirrors them there, is channels_last, and has one fused optimizer; each in float32, and in bfloat16 by
autocast. *Parity* is the largest difference of a weight between CPU and GPU after a few steps of the same run in
float32, without dropout.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.frame import images
from benchmarks.frame.command import main
from benchmarks.frame.report import Ratio, Report, Series, ratio
from benchmarks.opponents.epochs import Entrant, race
from benchmarks.opponents.job import Job
from benchmarks.peers.race import peers_python

_OURS, _HAND, _LIGHTNING = "ll.run, torch-eager", "torch by hand", "Lightning"
_DEVICE = "cuda"  # the tests see on a CPU that all fits together


def has_gpu() -> bool:
    """Whether torch finds one."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def largest_difference(job: Job, steps: int) -> float:
    """Between a weight after so many steps on the CPU and on the GPU."""
    from benchmarks.opponents.product import Opponent

    found: list[dict[str, Any]] = []
    for device in ("cpu", _DEVICE):
        settings = {**job.to_dict(), "device": device, "dropout": 0.0}
        found.append(Opponent(settings, "torch-eager").run(max_steps=steps).weights)
    return max(float(np.abs(found[0][name] - found[1][name]).max()) for name in found[0])


class Gpu:
    """``ll.run`` on CUDA."""

    name = "gpu"
    question = "How long is an epoch of ll.run on a GPU beside a loop written by hand?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """In turn, each in a process of its own; nothing where there is no GPU."""
        if not has_gpu():
            return Report(self.name, self.question, notes=("skipped: no GPU",))
        data = images.source()
        job = Job(data, 62 * 64, device=_DEVICE)
        if quick:
            job = Job("digits", 16, 8, model="tiny", batch_size=8, device=_DEVICE)
        series: dict[str, Series] = {}
        missing: dict[str, str] = {}
        ratios: list[Ratio] = []
        for autocast in (None, "bfloat16"):
            names = {role: f"{role}, {autocast or 'float32'}" for role in (_OURS, _HAND, _LIGHTNING)}
            settings = {"job": replace(job, autocast=autocast).to_dict()}
            entrants = {
                names[_OURS]: Entrant("benchmarks.opponents.product:Opponent", {**settings, "backend": "torch-eager"}),
                names[_HAND]: Entrant("benchmarks.opponents.cuda_loop:Opponent", settings),
                names[_LIGHTNING]: Entrant("benchmarks.peers.lightning_trainer:Opponent", settings, peers_python()),
            }
            found, gone = race(entrants, rounds, 1 if quick else 10, job.steps_per_epoch)
            series, missing = series | found, missing | gone
            if names[_OURS] in found:
                others = (found[names[role]] for role in (_HAND, _LIGHTNING) if names[role] in found)
                ratios += [ratio(found[names[_OURS]], other) for other in others]
        difference = largest_difference(job, 4)
        parity = Series("CPU to GPU", "largest difference of a weight after 4 steps, float32", "", (difference,))
        notes = (f"MobileNetV2, batch 64, {images.described(data)}; bfloat16 by autocast.",)
        return Report(self.name, self.question, (*series.values(), parity), tuple(ratios), (), missing, notes)


BENCHMARK = Gpu()

if __name__ == "__main__":
    main(BENCHMARK)
