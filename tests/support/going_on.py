"""Runs of many kinds that stop within an epoch, and go on in another number of processes or on another framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.many_runs import make_data, numbers_of

MADE, WHOLE = 5, 11  # updates before the stop and in all; an epoch has 4, or 2 of several batches
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_steps": 3},
    "last batch": {"drop_last": False, "images": 45},
    "mixed": {"mix": True},
    "sizes": {"sizes": True},
    "all of it": {"drop_last": False, "images": 46, "mix": True, "augment": True},
}
BEGIN, GO_ON = (f"tests.support.going_on:{name}" for name in ("begin_all", "go_on_all"))


def begin_all(folder: str) -> None:
    """Make the first updates of all cases."""
    for name in CASES:
        train(name, MADE, f"{folder}/{name}")


def go_on_all(folder: str) -> dict[str, Any]:
    """Make the rest of all cases."""
    return {name: _go_on(name, folder) for name in CASES}


def go_on_all_on_oneflow(folder: str) -> dict[str, Any]:
    """Make the rest of all cases on another framework."""
    return {name: _go_on(name, folder, backend="oneflow-eager") for name in CASES}


def train(name: str, steps: int, folder: str | None = None) -> dict[str, Any]:
    """A case from its beginning on."""
    import layered_lr as ll

    chosen = dict(CASES[name])
    data = make_data(chosen.pop("images", 48))
    if "mix" in chosen:
        chosen["mix"] = ll.Mix(mixup=0.4, cutmix=1.0)
    if "sizes" in chosen:
        chosen["sizes"] = ll.Sizes([32, 24], every=2)
    said: dict[str, Any] = {"batch_size": 12, "max_steps": steps, "precision": "float64", "sync_batch_norm": True}
    spec = ll.Spec(ll.SGD(0.05, momentum=0.9))
    return numbers_of(ll.run(spec, "torch-eager", _net, data, checkpoints=folder, progress=False, **said, **chosen))


def _go_on(name: str, folder: str, **changes: Any) -> dict[str, Any]:
    import layered_lr as ll

    data = make_data(CASES[name].get("images", 48))
    return numbers_of(ll.resume(f"{folder}/{name}", max_steps=WHOLE, model=_net, data=data, **changes))


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def farthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """How far the losses and the weights of two runs are apart, at most."""
    assert len(one["losses"]) == len(other["losses"]) == WHOLE
    names = [name for name in one if name == "losses" or name.startswith("weights")]
    return max(float(np.abs(one[name] - other[name]).max()) for name in names if not name.endswith("tracked"))
