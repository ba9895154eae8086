"""Data and models with targets that are no class numbers, for runs in several processes."""

from __future__ import annotations

from typing import Any

import numpy as np

_RNG = np.random.default_rng(5)
_COUNT, _TRAINED = 37, 29
IMAGES = _RNG.standard_normal((_COUNT, 3, 8, 8)).astype(np.float32)
VALUES = _RNG.standard_normal((_COUNT, 2)).astype(np.float32)
MASKS = _RNG.integers(0, 3, (_COUNT, 8, 8)).astype(np.uint8)
MASKS[:, 0, 0] = 255  # ignored; as many in each image, so that the mean of the images' means is that of all pixels
TARGETS = {"values": VALUES, "one value": VALUES[:, 0], "labels": (VALUES > 0).astype(np.int64), "masks": MASKS}


def options_of(kind: str) -> dict[str, Any]:
    """The model, the data, the loss and a metric of a run; its last batch has 5 of 8 images.

    Args:
        kind: Of the targets: ``values``, ``one value``, ``labels`` or ``masks``.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    def net() -> Any:
        last = nn.Conv2d(4, 3, 1) if kind == "masks" else nn.Linear(256, 1 if kind == "one value" else 2)
        middle: list[Any] = [] if kind == "masks" else [nn.Flatten(), nn.Dropout(0.2)]
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), *middle, last)

    def column_loss(outputs: Any, targets: Any) -> Any:
        return functional.l1_loss(outputs.squeeze(1), targets)

    losses = {
        "values": nn.MSELoss(),
        "one value": column_loss,
        "labels": nn.BCEWithLogitsLoss(),
        "masks": nn.CrossEntropyLoss(ignore_index=255),
    }
    torch.manual_seed(1)
    targets = TARGETS[kind]
    return {
        "model": net,
        "data": (IMAGES[:_TRAINED], targets[:_TRAINED], IMAGES[_TRAINED:], targets[_TRAINED:]),
        "loss": losses[kind],
        "metrics": {"spread": spread},
        "batch_size": 8,
        "drop_last": False,
        "augment": False,
        "sync_batch_norm": False,
    }


def spread(outputs: Any, targets: Any) -> float:
    """A number that depends on each output, each target, and on which of them belong together."""
    known = np.where(targets == 255, 0.0, targets).reshape(len(targets), -1).sum(1)
    return float((outputs.reshape(len(outputs), -1).sum(1) * known).mean())
