"""Models, data and runs whose targets are no class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((40, 3, 8, 8)).astype(np.float32)
VALUES = RNG.standard_normal((40, 2)).astype(np.float32)
MASKS = RNG.integers(0, 3, (40, 8, 8)).astype(np.uint8)
MASKS[:, 0, 0] = 255
LABELS = (VALUES > 0).astype(np.int64)


def net(outputs: int) -> Any:
    torch.manual_seed(3)
    last = torch.nn.Linear(256, outputs)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten(), last)


def pixel_net() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 3, 1))


CASES: dict[str, tuple[Any, Any, Any]] = {
    "values": (lambda: net(2), VALUES, torch.nn.MSELoss()),
    "one value": (lambda: net(1), VALUES[:, 0], lambda outputs, targets: F.l1_loss(outputs.squeeze(1), targets)),
    "labels": (lambda: net(2), LABELS, torch.nn.BCEWithLogitsLoss()),
    "masks": (pixel_net, MASKS, torch.nn.CrossEntropyLoss(ignore_index=255)),
}


def halves(targets: Any) -> tuple[Any, ...]:
    return IMAGES[:32], targets[:32], IMAGES[32:], targets[32:]


def error(outputs: Any, targets: Any) -> float:
    return float(np.abs(outputs.reshape(targets.shape) - targets).mean())


def train(case: str, backend: str = "torch-eager", **other: Any) -> ll.Result:
    model, targets, loss = CASES[case]
    given = {"model": model, "data": halves(targets), "loss": loss, "epochs": 2, "batch_size": 8, "progress": False}
    return ll.run(ll.Spec(ll.SGD(0.05, momentum=0.9)), backend=backend, **{**given, **other})
