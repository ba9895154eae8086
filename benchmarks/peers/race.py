"""Is ``ll.run`` faster than what a user would pick instead?

    make bench-peers            (or python -m benchmarks.peers [--rounds 5] [--quick] [--data FILE.npz])

The same model (torchvision's MobileNetV2), images, batch, augmentation, precision and groups for everybody; each peer
in the way its own documentation shows, in a process of its own of ``.venv-peers``. A peer that is not installed or
fails is a row that says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.frame import images
from benchmarks.frame.report import Report, Target, ratio
from benchmarks.frame.worker import ROOT
from benchmarks.opponents.epochs import Entrant, race
from benchmarks.opponents.job import Job

_OURS = "ll.run, torch-eager"
_NO_GROUPS = "one rate for all: Keras has no groups; the loss it keeps is a running mean"
_HAND = "benchmarks.opponents.torch_loop:Opponent"

TARGETS = {
    "tutorial loop": Target(0.6),
    "Lightning": Target(0.6),
    "Keras 3": Target(0.5),
    "Keras 3, jit_compile": Target(0.5),
}


def peers_python() -> str:
    """The interpreter of the peers' environment, where it is set up; else this one."""
    own = ROOT / ".venv-peers" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


class Peers:
    """``ll.run`` against loops and trainers of others."""

    name = "peers"
    question = "How long is an epoch of ll.run beside the loops and trainers that a user would pick instead?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """All in turn."""
        data = images.source()
        job = Job("digits", 2 * 8, 8, model="tiny", batch_size=8) if quick else Job(data, 62 * 64)
        python, settings = peers_python(), {"job": job.to_dict()}

        def entrant(file: str, note: str = "", **more: object) -> Entrant:
            return Entrant(f"benchmarks.peers.{file}:Opponent", {**settings, **more}, python, note=note)

        entrants = {
            _OURS: Entrant("benchmarks.opponents.product:Opponent", {**settings, "backend": "torch-eager"}, python),
            "torch by hand": Entrant(_HAND, settings, python),
            "tutorial loop": entrant("tutorial", "DataLoader, PIL transforms, 2 workers, NCHW, SGD as it comes"),
            "Lightning": entrant("lightning_trainer"),
            "Keras 3": entrant("keras_fit", _NO_GROUPS, jit=False),
            "Keras 3, jit_compile": entrant("keras_fit", _NO_GROUPS, jit=True),
            "timm": entrant("timm_loop", "its loader, optimizer and scheduler; the rate of a group by lr_scale"),
            "fastai": entrant("fastai_learner"),
        }
        series, missing = race(entrants, rounds, job.steps_per_epoch, warm=not quick)
        ratios = [ratio(series[_OURS], series[name], TARGETS.get(name)) for name in entrants if name in series]
        return Report(
            self.name,
            self.question,
            series=tuple(series.values()),
            ratios=tuple(found for found in ratios if found.name != f"{_OURS} / {_OURS}"),
            missing=missing,
            notes=(
                f"MobileNetV2, batch 64, {images.described(job.data)}, crop and flip, two groups, an epoch of "
                f"{job.steps_per_epoch} steps.",
            ),
            about={"versions": _versions(python)},
        )


def _versions(python: str) -> dict[str, str]:
    """Of the packages in the peers' environment, which are not this one's."""
    found = {}
    for folder in Path(python).parents[1].glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if name in ("lightning", "keras", "timm", "fastai", "torch", "torchvision"):
            found[name] = version
    return found


BENCHMARK = Peers()
