"""What is random of an epoch in the loops written by hand; imports no framework."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PADDING = 4


class Draws(NamedTuple):
    """Of one epoch.

    Args:
        order: Of the images.
        top: Where each image's window begins in the padded image.
        left: Likewise.
        flip: Which images are mirrored.
    """

    order: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]


def draws(seed: int, epoch: int, size: int) -> Draws:
    """Everything random of an epoch but dropout."""
    rng = np.random.default_rng([seed, epoch])
    top, left = rng.integers(0, 2 * PADDING + 1, (2, size))
    return Draws(rng.permutation(size), top, left, rng.random(size) < 0.5)
