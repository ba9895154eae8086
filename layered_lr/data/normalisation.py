"""Normalisation of uint8 images for each channel, with a table of the 256 values that a pixel can have."""

from __future__ import annotations

import math

import numpy as np

from layered_lr.arrays import Array, Float32, Float64

_CHUNK_BYTES = 1 << 18  # small enough to stay in the processor's cache
_MOST_TOGETHER = 1 << 16  # as many squares of pixels as a uint32 can sum up


def channel_statistics(images: Array) -> tuple[Float32, Float32]:
    """Compute the mean and standard deviation of each channel of ``images / 255``.

    Both are computed in whole numbers and rounded only at the end, so that they depend neither on the order of the
    images nor on the machine. The deviation is that of the population (``ddof=0``).

    Args:
        images: uint8 NHWC.

    Returns:
        ``mean`` and ``std``, each float32 of shape ``(C,)``. A channel with a single value has ``std`` 1, so that it
        becomes 0.
    """
    sums = ChannelSums(images.shape[1:])
    sums.add(images)
    return sums.statistics()


class ChannelSums:
    """Adds up the pixels of uint8 images, block after block, for the statistics of each channel.

    Args:
        shape: ``(H, W, C)`` of the images.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._channels = shape[-1]
        self._row_size = math.prod(shape)
        self._totals = np.zeros((2, self._row_size), np.int64)  # of the values, and of their squares
        self._images = 0

    def add(self, images: Array) -> None:
        """Add images, uint8 NHWC."""
        rows = images.reshape(len(images), -1)  # (N, H*W*C)
        images_together = min(max(_CHUNK_BYTES // self._row_size, 1), _MOST_TOGETHER)
        for start in range(0, len(rows), images_together):
            chunk = rows[start : start + images_together]
            self._totals[0] += np.add.reduce(chunk, axis=0, dtype=np.uint32)
            self._totals[1] += np.add.reduce(np.multiply(chunk, chunk, dtype=np.uint16), axis=0, dtype=np.uint32)
        self._images += len(images)

    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and standard deviation of each channel, as ``channel_statistics`` says."""
        size = self._images * self._row_size // self._channels
        # Python's integers from here on, because the squares exceed 64 bits
        sums, squares = (total.reshape(-1, self._channels).sum(axis=0).tolist() for total in self._totals)
        mean = [total / (size * 255) for total in sums]
        variance = [(size * square - total**2) / (size * 255) ** 2 for total, square in zip(sums, squares, strict=True)]
        return np.array(mean, np.float32), np.array([math.sqrt(v) or 1 for v in variance], np.float32)


def normalisation_table(mean: Float32, std: Float32) -> Float32:
    """Compute ``(v / 255 - mean) / std`` for each pixel value v in float64, and round it to float32, ``(C, 256)``."""
    values = np.arange(256, dtype=np.float64) / 255
    table: Float64 = (values - mean.astype(np.float64)[:, None]) / std.astype(np.float64)[:, None]
    return table.astype(np.float32)


def normalise(images: Array, table: Float32) -> Float32:
    """Replace every pixel by its value in the table.

    Args:
        images: uint8 NHWC, of any strides.
        table: float32 ``(C, 256)``, from ``normalisation_table``.

    Returns:
        float32 NCHW, C-contiguous, newly allocated.
    """
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), dtype=np.float32)
    for channel, values in enumerate(table):
        # mode="clip" saves the check of bounds, which a uint8 cannot exceed.
        result[:, channel] = values.take(images[..., channel], mode="clip")
    return result


class PairTable:
    """Looks up two pixel values at once: the fastest way to normalise images whose memory is NHWC.

    In memory the channels of a pixel follow each other, so two neighbouring bytes are one uint16. For each pair of
    channels that can be neighbours, a table gives two float32 for each of its 65,536 values.

    Args:
        table: float32 ``(C, 256)``, from ``normalisation_table``.
        shape: ``(H, W, C)`` of the images, for which ``fits`` must be true.
    """

    def __init__(self, table: Float32, shape: tuple[int, ...]) -> None:
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
        """Whether images of ``(H, W, C)`` have an even number of values, and at most 4 channels (tables of 2 MiB)."""
        height, width, channels = shape
        return channels <= 4 and height * width * channels % 2 == 0

    def normalise(self, images: Array) -> Float32:
        """Replace every pixel by its value in the table.

        Args:
            images: uint8 NHWC, C-contiguous.

        Returns:
            float32 of shape NCHW whose memory is NHWC, newly allocated; the same bits as from ``normalise``.
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
