"""Normalisation of uint8 images per channel, through a table of the 256 values a pixel can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 18  # stays in the cache
_MOST_TOGETHER = 1 << 16  # squares of pixels whose sum a uint32 holds


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
    channels = images.shape[-1]
    rows = images.reshape(len(images), -1)  # (N, H*W*C)
    totals = np.zeros((2, rows.shape[1]), np.int64)  # of the values, and of their squares
    images_together = min(max(_CHUNK_BYTES // rows.shape[1], 1), _MOST_TOGETHER)
    for start in range(0, len(rows), images_together):
        chunk = rows[start : start + images_together]
        totals[0] += np.add.reduce(chunk, axis=0, dtype=np.uint32)
        totals[1] += np.add.reduce(np.multiply(chunk, chunk, dtype=np.uint16), axis=0, dtype=np.uint32)
    size = rows.size // channels
    # Python's integers from here on: the squares exceed 64 bits
    sums, squares = (total.reshape(-1, channels).sum(axis=0).tolist() for total in totals)
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
        images: uint8 NHWC, of any strides.
        table: Of ``normalisation_table``.

    Returns:
        float32 NCHW, C-contiguous, newly allocated.
    """
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), dtype=np.float32)
    for channel, values in enumerate(table):
        # mode="clip" spares the check of bounds: a uint8 cannot exceed them.
        result[:, channel] = values.take(images[..., channel], mode="clip")
    return result


class PairTable:
    """Looks up two values at once, the fastest way to normalise where the result's memory is NHWC.

    Each pixel's channels lie one behind the other, so that every two neighbouring bytes are a uint16, whose 65,536
    values have a table of two float32 for each pair of channels that can be neighbours.

    Args:
        table: Of ``normalisation_table``.
        shape: ``(H, W, C)`` of the images; see ``fits``.
    """

    def __init__(self, table: NDArray[np.float32], shape: tuple[int, ...]) -> None:
        height, width, channels = self._shape = tuple(shape)
        kinds = channels if channels % 2 else channels // 2
        low, high = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2).T  # as they lie in memory
        pairs = np.empty((kinds, 1 << 16, 2), np.float32)
        for kind in range(kinds):
            pairs[kind, :, 0] = table[2 * kind % channels, low]
            pairs[kind, :, 1] = table[(2 * kind + 1) % channels, high]
        self._pairs = pairs.reshape(-1).view(np.uint64)
        places = np.arange(height * width * channels // 2)
        self._offsets = places % kinds << 16
        self._indices = np.empty((0, len(places)), np.intp)

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        """Whether images of ``(H, W, C)`` are whole pairs, of few enough channels for tables of at most 2 MiB."""
        height, width, channels = shape
        return channels <= 4 and height * width * channels % 2 == 0

    def normalise(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Look up every pixel.

        Args:
            images: uint8 NHWC, C-contiguous.

        Returns:
            float32 NCHW, newly allocated, its memory NHWC; bitwise what ``normalise`` gives.
        """
        count = len(images)
        if count > len(self._indices):
            self._indices = np.empty((count, len(self._offsets)), np.intp)
        indices = self._indices[:count]
        indices[...] = images.reshape(count, -1).view(np.uint16)
        indices += self._offsets
        result = np.empty(indices.shape, np.uint64)
        self._pairs.take(indices, out=result, mode="clip")
        return result.view(np.float32).reshape(count, *self._shape).transpose(0, 3, 1, 2)
