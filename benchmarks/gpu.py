"""On a GPU: ``ll.run(device="cuda")`` beside a loop written by hand, and beside Lightning where it is installed.

    python -m benchmarks.gpu [--rounds 5] [--quick] [--data FILE.npz]

Where torch finds no GPU it says 'skipped: no GPU', and that is all. The loop by hand keeps the images on the device,
cuts and mirrors them there, is channels_last, and has one fused optimizer; each in float32, and in bfloat16 by
autocast. *Parity*: the same run on CPU and GPU, in float64, where they have to agree, and in float32, where the CPU's
own difference to float64 stands beside the GPU's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import layered_lr as ll
from benchmarks.frame import images
from benchmarks.frame.command import main
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.opponents.epochs import Entrant, race
from benchmarks.opponents.job import Job
from benchmarks.peers.race import peers_python

_OURS, _HAND, _LIGHTNING = "ll.run, torch-eager", "torch by hand", "Lightning"
_SAME_STEPS, _SAME = 8, Target(1e-9)
_DEVICE = "cuda"  # the tests see on a CPU that all fits together


def has_gpu() -> bool:
    """Whether torch finds one."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def parity(job: Job) -> list[Series]:
    """The largest difference of a parameter to the CPU's in float64, after a few steps at a calm rate."""
    from benchmarks.opponents.product import Opponent

    def run(device: str, dtype: str) -> ll.Result:
        calm = replace(job, device=device, lr=0.001)
        return Opponent(calm.to_dict(), "torch-eager").run(max_steps=_SAME_STEPS, precision=dtype)

    exact = run("cpu", "float64")
    names = [parameter.name for parameter in exact.plan.parameters]
    found = []
    for device, dtype, target in (("cuda", "float64", _SAME), ("cuda", "float32", None), ("cpu", "float32", None)):
        these = run(_DEVICE if device == "cuda" else device, dtype).weights
        largest = max(float(np.abs(these[name] - exact.weights[name]).max()) for name in names)
        quantity = f"largest difference of a parameter after {_SAME_STEPS} calm steps, {dtype}"
        found.append(Series(device, quantity, "", (largest,), target))
    return found


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
            found, gone = race(entrants, rounds, job.steps_per_epoch, epochs=1 if quick else 10)
            series, missing = series | found, missing | gone
            if names[_OURS] in found:
                others = (found[names[role]] for role in (_HAND, _LIGHTNING) if names[role] in found)
                ratios += [ratio(found[names[_OURS]], other) for other in others]
        notes = (
            f"MobileNetV2, batch 64, {images.described(data)}. float32 is as torch has it, with convolutions in TF32 "
            "where the GPU can; bfloat16 is by autocast.",
        )
        return Report(self.name, self.question, (*series.values(), *parity(job)), tuple(ratios), (), missing, notes)


BENCHMARK = Gpu()

if __name__ == "__main__":
    main(BENCHMARK)
