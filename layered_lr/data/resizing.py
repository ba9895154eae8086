"""Resizes the images of a batch: bilinear, with a filter as wide as a pixel of the smaller image (antialiased)."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float32, Float64


def resizing_matrix(old: int, new: int) -> Float32:
    """Compute the weights of ``old`` pixels in each of ``new`` ones, shape (new, old); each row sums to 1.

    They are those of ``torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False)``, and of
    Pillow's bilinear filter.

    Example:
        >>> resizing_matrix(4, 2).tolist()
        [[0.4285714328289032, 0.4285714328289032, 0.1428571492433548, 0.0], [0.0, 0.1428571492433548, \
0.4285714328289032, 0.4285714328289032]]
    """
    width = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * (old / new)
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None])
    weights: Float64 = np.maximum(0.0, 1.0 - distances / width)
    whole: Float64 = weights / weights.sum(axis=1, keepdims=True)
    return whole.astype(np.float32)


class Resizer:
    """Resizes images to squares.

    Args:
        height: Of the images.
        width: Of the images.
        size: Pixels of a side of the new ones.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        self._rows = resizing_matrix(height, size)
        self._columns = np.ascontiguousarray(resizing_matrix(width, size).T)

    def resize(self, images: Float32) -> Float32:
        """Resize images, float32 NCHW; the result is newly allocated."""
        resized: Float32 = np.matmul(np.matmul(self._rows, images), self._columns)
        return resized
