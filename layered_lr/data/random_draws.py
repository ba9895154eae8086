"""Random draws as pure functions of (seed, purpose, epoch, index), the same on every machine and NumPy.

They are made from the raw 64-bit words of PCG64, whose stream NumPy promises to keep. It makes no such promise
for ``Generator.permutation`` or ``integers`` (NEP 19), and a resumed run must see the batches of the first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Each purpose has a stream of its own, so that switching augmentation on does not change the order of the images.
_SHUFFLE, _CROP, _SPLIT = range(3)


class Crops(NamedTuple):
    """For each sample, where its crop begins in the padded image, in pixels, and whether it is flipped."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]


def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)`` for one epoch."""
    return np.argsort(_words(seed, _SHUFFLE, epoch, size), kind="stable")


def split_order(seed: int, size: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)`` by which a data set is cut into training and test part."""
    return np.argsort(_words(seed, _SPLIT, 0, size), kind="stable")


def epoch_crops(seed: int, epoch: int, size: int, padding: int) -> Crops:
    """Each sample's crop offsets, uniform in ``0..2*padding``, and its flip, with probability 1/2.

    Sample i takes the i-th word, so its draw depends on neither the batch size nor its position in the epoch.
    """
    words = _words(seed, _CROP, epoch, size)
    offsets = np.uint64(2 * padding + 1)
    return Crops(
        top=((words >> np.uint64(32)) % offsets).astype(np.int64),
        left=((words & np.uint64(0x7FFFFFFF)) % offsets).astype(np.int64),
        flip=(words >> np.uint64(31) & np.uint64(1)).astype(np.bool_),
    )


def _words(seed: int, purpose: int, epoch: int, count: int) -> NDArray[np.uint64]:
    # spawn_key and not [seed, purpose, epoch] as entropy: there a seed beyond 32 bits runs into its neighbours.
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, epoch))
    return np.random.PCG64(sequence).random_raw(count)
