"""Mixup and CutMix: each image of a batch is mixed with the one before it, and so are their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float32, Float64, Int64
from layered_lr.data.random_draws import make_mixing_generator


class Draw(NamedTuple):
    """How the images of one update are mixed.

    Args:
        share: The share of each image that is its own, from 0 to 1, and so that of its label.
        box: The rows and columns (top, bottom, left, right) that come from the other image; None mixes all pixels.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Mixer:
    """Mixes the batches of a run, as torchvision's ``v2.MixUp`` and ``v2.CutMix`` do.

    Draws depend on the seed and the update alone. NumPy may change what it draws from them between its versions.

    Args:
        mixup: Alpha of the Beta distribution of Mixup's shares; 0 leaves Mixup out.
        cutmix: Alpha of CutMix's; 0 leaves CutMix out. With both, each update takes one of them, either with
            probability 1/2.
        probability: The share of the updates that are mixed.
        classes: Of the data.
        seed: Of the run.
    """

    mixup: float
    cutmix: float
    probability: float
    classes: int
    seed: int

    def draw(self, update: int, height: int, width: int) -> Draw:
        """Draw how an update is mixed.

        Args:
            update: Counted from the start of the run.
            height: Of the images, in pixels.
            width: Of the images, in pixels.
        """
        rng = make_mixing_generator(self.seed, update)
        mixes, chooses, x, y = rng.random(4).tolist()
        if mixes >= self.probability:
            return Draw(1.0)
        cuts = self.cutmix > 0 and (self.mixup == 0 or chooses < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        return cut_box(share, height, width, int(y * height), int(x * width)) if cuts else Draw(share)

    def mix(self, images: Float32, others: Float32, draw: Draw) -> Float32:
        """Mix images with others, in new memory.

        Args:
            images: Shape (N, C, H, W).
            others: Those that they are mixed with, in the same order.
            draw: How.
        """
        own = np.float32(draw.share)
        if draw.box is None:
            rest = np.float32(1.0 - draw.share)
            mixed: Float32 = others * rest
            mixed += images * own
            return mixed
        top, bottom, left, right = draw.box
        mixed = images.copy(order="K")
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return mixed

    def mix_labels(self, labels: Int64, others: Int64, draw: Draw) -> Float64:
        """Return the share of each class in each mixed image, shape (N, classes)."""
        rows = np.arange(len(labels))
        shares = np.zeros((len(labels), self.classes))
        shares[rows, labels] += draw.share
        shares[rows, others] += 1.0 - draw.share
        return shares


def cut_box(share: float, height: int, width: int, row: int, column: int) -> Draw:
    """Return the box around a pixel that holds a share of the image, less what lies outside of the image.

    Args:
        share: Of the image that stays its own.
        height: Of the image.
        width: Of the image.
        row: Of the pixel.
        column: Of the pixel.

    Returns:
        The box, and the share that is really its own, as torchvision computes both.

    Example:
        >>> cut_box(0.75, 8, 8, 0, 4)
        Draw(share=0.875, box=(0, 2, 2, 6))
    """
    half = 0.5 * math.sqrt(1.0 - share)
    tall, wide = int(half * height), int(half * width)
    top, bottom = max(row - tall, 0), min(row + tall, height)
    left, right = max(column - wide, 0), min(column + wide, width)
    return Draw(1.0 - (bottom - top) * (right - left) / (width * height), (top, bottom, left, right))


def one_before(count: int) -> Int64:
    """The place of the image that each of ``count`` images is mixed with; the first is mixed with the last."""
    places: Array = (np.arange(count) - 1) % count
    return places
