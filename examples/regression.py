"""A run that predicts two numbers for each image, judged by their mean error; the best epoch's weights come back."""

import os

import numpy as np
import torch
from numpy.typing import NDArray

import layered_lr as ll


def make_model() -> torch.nn.Module:
    """A small convolutional network with two outputs."""
    features = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten())
    return torch.nn.Sequential(features, torch.nn.Linear(8 * 7 * 7, 2))


def mean_error(outputs: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """The mean distance of each number from the one that it should be."""
    return float(np.abs(outputs - targets).mean())


def make_data(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images with one bright square, and where its middle is, from 0 to 1."""
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 12, (count, 2))
    images = np.zeros((count, 1, 16, 16), np.float32)
    for image, (top, left) in zip(images, corners, strict=True):
        image[0, top : top + 4, left : left + 4] = 1.0
    return images, ((corners + 2) / 16).astype(np.float32)


spec = ll.Spec(ll.Adam(1e-3), [ll.Group("1", name="head", lr_scale=3), ll.Group("0", name="features")])
result = ll.run(
    spec,
    model=make_model,
    data=(*make_data(512), *make_data(128)),
    loss=torch.nn.MSELoss(),
    metrics=[mean_error],
    early_stop=ll.EarlyStop("mean_error", mode="min", patience=3),
    max_steps=int(os.environ.get("MAX_STEPS", "320")),
    batch_size=32,
)
print(f"mean error on the test images: {result.logged['mean_error'][-1, 1]:.3f}")
