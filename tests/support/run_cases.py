"""Folders of small runs: with 1, 12 and 60 groups, with phases, gradient norms and several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import layered_lr as ll
from tests.support.models import CLASSES, FEATURES, arrays

UPDATES = 40


def net_of(count: int) -> Any:
    """A callable that builds a network of so many layers."""

    def build() -> Any:
        import torch

        torch.manual_seed(0)
        model = torch.nn.Sequential()
        model.add_module("flat", torch.nn.Flatten(1))
        for number in range(count - 1):
            model.add_module(f"block{number:02}", torch.nn.Linear(FEATURES, FEATURES))
        model.add_module("head", torch.nn.Linear(FEATURES, CLASSES))
        return model

    return build


class LogPart(ll.Callback):
    """Logs a number at each epoch, under a name that is long and means something to matplotlib and to HTML."""

    def on_epoch(self, event: Any) -> None:
        event.run.log({f"$part$ <b>{'of the whole ' * 6}": event.epoch / 10})


def make_run(folder: Path, groups: int, lr: float = 0.01, **other: Any) -> ll.Result:
    """A run in three phases (with one group: in one), whose gradient norms are measured."""
    named = [ll.Group(f"block{number:02}.*", lr_scale=0.95**number) for number in range(groups - 1)]
    phases = [ll.Phase("2 epochs", frozen="block0*"), ll.Phase("3 epochs", frozen="block00.*"), ll.Phase()]
    spec = ll.Spec(
        ll.SGD(lr, momentum=0.9), named, ll.CosineDecay(warmup_steps=5), phases=phases[:2] if groups > 1 else [],
        clip_grad_norm=1.0,
    )  # fmt: skip
    options = {"epochs": 8, "batch_size": 8, "data": arrays(), "progress": False, "device": "cpu"}
    options |= {"callbacks": [LogPart()], **other}
    return ll.run(spec, model=net_of(groups), checkpoints=ll.Checkpoints(folder, keep=1), **options)
