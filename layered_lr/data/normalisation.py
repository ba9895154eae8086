"""Normalisation of uint8 images per channel, through a table of the 256 values a pixel can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_PIXELS = 1 << 16  # bincount widens its input to int64: in chunks that stays in the cache


def channel_statistics(images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel of ``images / 255``.

    Both come from whole numbers without rounding error, rounded only at the end, so they depend on neither the
    order of the images nor the machine. The deviation is that of the population (``ddof=0``).

    Args:
        images: uint8 NHWC.

    Returns:
        ``mean`` and ``std``, each float32 of shape ``(C,)``. A channel of one value throughout has ``std`` 1,
        so that it normalises to 0.
    """
    pixels = images.reshape(-1, images.shape[-1])  # (N*H*W, C)
    counts = np.zeros((pixels.shape[1], 256), dtype=np.int64)
    for start in range(0, len(pixels), _CHUNK_PIXELS):
        chunk = pixels[start : start + _CHUNK_PIXELS]
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[:, channel], minlength=256)
    values = np.arange(256)
    size = len(pixels)
    sums = [int(count @ values) for count in counts]  # Python's integers: the squares below exceed 64 bits
    squares = [int(count @ values**2) for count in counts]
    mean = [total / (size * 255) for total in sums]
    variance = [(size * square - total**2) / (size * 255) ** 2 for total, square in zip(sums, squares, strict=True)]
    return np.array(mean, np.float32), np.array([math.sqrt(v) or 1 for v in variance], np.float32)


def normalisation_table(mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(v / 255 - mean) / std`` for each pixel value v: float32 ``(C, 256)``, computed in float64, rounded once."""
    values = np.arange(256, dtype=np.float64) / 255
    table: NDArray[np.float64] = (values - mean.astype(np.float64)[:, None]) / std.astype(np.float64)[:, None]
    return table.astype(np.float32)


def normalise(images: NDArray[Any], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Look up every pixel.

    Args:
        images: uint8 NCHW, of any strides.
        table: Of ``normalisation_table``.

    Returns:
        float32 NCHW, C-contiguous, newly allocated.
    """
    result = np.empty(images.shape, dtype=np.float32)
    for channel, values in enumerate(table):
        # mode="clip" spares the check of bounds: a uint8 cannot exceed them.
        result[:, channel] = np.take(values, images[:, channel], mode="clip")
    return result
