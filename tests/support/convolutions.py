"""A small convolutional network and images for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH, STEPS, CLASSES, SIDE = 4, 6, 3, 8


def images(count: int = BATCH * STEPS, side: int = SIDE) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((count + 2, 3, side, side)).astype(np.float32)
    y = np.arange(count + 2) % CLASSES
    return x[:count], y[:count], x[count:], y[count:]


def small(torch: Any, last: bool) -> Callable[[], Any]:
    """What builds a convolutional network, 3x3 and depthwise and 1x1, in either memory format."""
    nn = torch.nn

    def build() -> Any:
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 2, groups=6),
            nn.Conv2d(6, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
            nn.Linear(4, CLASSES),
        )
        return model.to(memory_format=torch.channels_last) if last else model

    return build
