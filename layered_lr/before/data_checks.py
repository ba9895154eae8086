"""What images and labels say by themselves: their size in numbers, and whether labels go with images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from layered_lr.arrays import Array, Float64
from layered_lr.data import Batches
from layered_lr.findings import Finding

_FARTHEST_MEAN, _LARGEST_DEVIATION, _LEAST_DEVIATION = 3.0, 4.0, 0.01
_MOST_IMAGES, _FEWEST_IMAGES = 1024, 100  # of which each one's nearest is looked for
_SIDE = 8  # pixels to which images are averaged for that
_SURE = 3.0  # standard deviations above chance, below which labels are taken for unrelated


def find_unnormalised(images: Array) -> Iterator[Finding]:
    """Yield a finding where a channel's numbers are far from a mean of 0 and a deviation of 1.

    Args:
        images: As the model gets them, shape (N, C, H, W).
    """
    wide = images.astype(np.float64)
    others = (0, *range(2, images.ndim))
    means, deviations = wide.mean(axis=others), wide.std(axis=others)
    odd = (np.abs(means) > _FARTHEST_MEAN) | (deviations > _LARGEST_DEVIATION) | (deviations < _LEAST_DEVIATION)
    if odd.any():
        worst = int(np.argmax(np.where(odd, np.abs(means) + np.abs(np.log(np.maximum(deviations, 1e-30))), -1)))
        yield Finding(
            "normalisation",
            f"{int(odd.sum())} of {len(odd)} channels have unusual numbers: channel {worst} has mean "
            f"{means[worst]:.3g} and deviation {deviations[worst]:.3g}.",
            (),
            (),
            "Gradients of the first layers are as much too large or too small.",
            "normalise the images to mean 0 and deviation 1 for each channel, or give them as uint8, which is "
            "normalised for you.",
        )


def find_contradictions(images: Array, labels: Array) -> Iterator[Finding]:
    """Yield a finding where one image has two labels: no model can learn both."""
    seen: dict[bytes, int] = {}
    count = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        count += seen.setdefault(np.ascontiguousarray(image).tobytes(), label) != label
    if count:
        yield Finding(
            "contradicting-labels",
            f"{count} images are the same as another one in these batches and have another label.",
            (),
            (),
            "No model learns both, so that the loss cannot reach zero.",
            "look at how images and labels are put together; remove copies.",
        )


def find_unrelated_labels(batches: Batches) -> Iterator[Finding]:
    """Yield a finding where the nearest image has the same label no more often than by chance.

    It looks at up to 1,024 training images without augmentation, averaged to 8x8 pixels. With fewer than 100 it says
    nothing.
    """
    images, labels = _sample(batches)
    count = len(labels)
    if count < _FEWEST_IMAGES or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return
    sizes = np.bincount(labels - labels.min()).astype(np.float64)
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))
    if not 0 < chance < 1:
        return
    squares = np.einsum("ij,ij->i", images, images)
    distances = squares[:, None] + squares[None] - 2 * images @ images.T
    np.fill_diagonal(distances, np.inf)
    agreement = float((labels[distances.argmin(axis=1)] == labels).mean())
    if agreement <= chance + _SURE * math.sqrt(chance * (1 - chance) / count):
        yield Finding(
            "labels",
            f"the nearest of {count} training images has the same label in {agreement:.1%} of all cases, and by chance "
            f"it would be {chance:.1%}.",
            (),
            (),
            "The labels may be shuffled against the images: a model can learn a batch by heart, and nothing of others.",
            "look at some images with their labels, and at whether both are read in one order.",
        )


def _sample(batches: Batches) -> tuple[Float64, Array]:
    """Some training images as vectors of few numbers, shape (n, features), and their labels."""
    found = list(islice(batches.updates(1), -(-_MOST_IMAGES // batches.batch_size)))
    steps = min(len(found), max(1, batches.steps_per_epoch))  # the next epoch has the same images again
    small = [_small(images) for images, _, _ in found[:steps]]
    labels = np.concatenate([labels for _, labels, _ in found[:steps]])
    vectors = np.concatenate(small)[:_MOST_IMAGES]
    return vectors - vectors.mean(axis=0), labels[:_MOST_IMAGES]


def _small(images: Array) -> Float64:
    """Images averaged to at most 8x8 pixels, as vectors."""
    if images.ndim != 4:
        return np.asarray(images.reshape(len(images), -1).astype(np.float64))
    count, channels, height, width = images.shape
    down, across = max(1, height // _SIDE), max(1, width // _SIDE)
    cut = images[:, :, : height // down * down, : width // across * across].astype(np.float64)
    pooled = cut.reshape(count, channels, height // down, down, width // across, across).mean(axis=(3, 5))
    return np.asarray(pooled.reshape(count, -1))
