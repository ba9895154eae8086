"""A small run on pixels, to predict with: a torch model that every backend takes, and its data."""

from __future__ import annotations

from typing import Any

import numpy as np

import layered_lr as ll

SIZE, CLASSES = 6, 3


def pixels(count: int, seed: int = 0) -> Any:
    """Random images, uint8 of shape (N, 6, 6, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def data() -> tuple[Any, Any, Any, Any]:
    """24 training and 7 test images of three classes."""
    return pixels(24), np.arange(24) % CLASSES, pixels(7, 1), np.arange(7) % CLASSES


def make_net() -> Any:
    """A convolution, a batch normalisation and a head, with a buffer that ``state_dict()`` leaves out."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Linear(4, CLASSES)
            self.register_buffer("scale", torch.ones(()), persistent=False)

        def forward(self, images: Any) -> Any:
            if self.training:
                self.scale.add_(0.25)
            return self.head(self.body(images).mean((2, 3)) * self.scale)

    return Net()


def make_plain_net() -> Any:
    """The same without what changes in the forward pass, which no other framework can take."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (SIZE - 2) ** 2, CLASSES)
    )


def train(model: Any = make_net, **more: Any) -> ll.Result:
    """Train it for two epochs."""
    options = {"model": model, "data": data(), "epochs": 2, "batch_size": 8, "progress": False, **more}
    return ll.run(ll.Spec(ll.SGD(0.1, momentum=0.9)), **options)
