"""Random draws that depend only on seed, purpose, epoch and index: the same on every machine and with every NumPy.

They come from the raw 64-bit words of PCG64, whose stream NumPy promises to keep. NumPy makes no such promise for
``Generator.permutation`` and ``integers`` (NEP 19), but a resumed run must see the same batches as the first one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Int64

# Each purpose has its own stream, so that augmentation does not change the order of the images.
_SHUFFLE, _CROP, _SPLIT, _AUGMENT, _SIZE, _MIX = range(6)


class Crops(NamedTuple):
    """For each image: where its crop begins in the padded image, in pixels, and whether it is flipped."""

    top: Int64
    left: Int64
    flip: NDArray[np.bool_]


def draw_order(seed: int, epoch: int, size: int) -> Int64:
    """Draw the order of the images in one epoch, a permutation of ``range(size)``."""
    return np.argsort(_draw_words(seed, _SHUFFLE, epoch, size), kind="stable")


def draw_split(seed: int, size: int) -> Int64:
    """Draw a permutation of ``range(size)`` for splitting a data set into a training and a test part."""
    return np.argsort(_draw_words(seed, _SPLIT, 0, size), kind="stable")


def draw_crops(seed: int, epoch: int, size: int, padding: int) -> Crops:
    """Draw each image's crop offsets, uniform in ``0..2*padding``, and its flip, with probability 1/2.

    Image i takes the i-th word, so its draw depends neither on the batch size nor on its position in the epoch.
    """
    words = _draw_words(seed, _CROP, epoch, size)
    offsets = np.uint64(2 * padding + 1)
    return Crops(
        top=((words >> np.uint64(32)) % offsets).astype(np.int64),
        left=((words & np.uint64(0x7FFFFFFF)) % offsets).astype(np.int64),
        flip=(words >> np.uint64(31) & np.uint64(1)).astype(np.bool_),
    )


def make_generator(seed: int, epoch: int, image: int) -> np.random.Generator:
    """Make the generator that augments one image in one epoch; NumPy may change what it draws of the raw words."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_AUGMENT, epoch, image))
    return np.random.Generator(np.random.PCG64(sequence))


def make_mixing_generator(seed: int, update: int) -> np.random.Generator:
    """Make the generator that mixes the images of one update; NumPy may change what it draws of the raw words."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_MIX, update))))


def draw_choice(seed: int, block: int, count: int) -> int:
    """Draw one of ``range(count)`` for a block of updates."""
    return int(_draw_words(seed, _SIZE, block, 1)[0] % np.uint64(count))


def _draw_words(seed: int, purpose: int, epoch: int, count: int) -> NDArray[np.uint64]:
    # Not [seed, purpose, epoch] as entropy: a seed of more than 32 bits would then overlap with the other two.
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, epoch))
    return np.random.PCG64(sequence).random_raw(count)
