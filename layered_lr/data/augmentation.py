"""Random crop and horizontal flip of a batch, as torchvision's ``RandomCrop(size, padding=4)`` does it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.data.random_draws import Crops

PADDING = 4


class Cropper:
    """Pads images with zeros, cuts a window of the old size out of each, and flips it left to right or not.

    Zero is black in uint8 images, which are normalised afterwards; in preprocessed float images it is what 0 means
    there. The padded images live in memory that each call uses again: one object serves one iteration.

    Args:
        shape: ``(H, W, C)`` of uint8 images, ``(C, H, W)`` of float ones.
        dtype: Of the images.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows = 1 if dtype == np.uint8 else 2  # the axis of the rows in (N, H, W, C) or (N, C, H, W)
        self._shape, self._dtype = shape, dtype
        self._make(0)

    def _make(self, count: int) -> None:
        rows, shape = self._rows, (count, *self._shape)
        padded = np.zeros([n + 2 * PADDING * (axis in (rows, rows + 1)) for axis, n in enumerate(shape)], self._dtype)
        inner = slice(PADDING, -PADDING)
        self._inside = padded[:, inner, inner] if rows == 1 else padded[:, :, inner, inner]
        by_image, *strides = padded.strides
        places = padded.strides[rows : rows + 2]
        # (N, 9, 9, *shape): of each image, its window at each offset; nothing is copied
        self._windows: NDArray[Any] = np.ndarray(
            (count, 2 * PADDING + 1, 2 * PADDING + 1, *self._shape),
            self._dtype,
            padded,
            strides=(by_image, *places, *strides),
        )
        self._numbers = np.arange(count)

    def crop(self, images: NDArray[Any], crops: Crops) -> NDArray[Any]:
        """One window of each image.

        Args:
            images: ``(N, *shape)``.
            crops: One of each per image: offsets in ``0..2*PADDING``.

        Returns:
            ``(N, *shape)``, newly allocated.
        """
        count = len(images)
        if count > len(self._numbers):
            self._make(count)
        self._inside[:count] = images
        cropped: NDArray[Any] = self._windows[self._numbers[:count], crops.top, crops.left]
        flipped = np.flatnonzero(crops.flip)
        cropped[flipped] = _mirrored(cropped[flipped]) if self._rows == 1 else cropped[flipped, :, :, ::-1]
        return cropped


def _mirrored(images: NDArray[Any]) -> NDArray[Any]:
    """uint8 NHWC, left to right: channel by channel, since copies of whole pixels would be loops of three steps."""
    mirrored = np.empty_like(images)
    for channel in range(images.shape[3]):
        mirrored[..., channel] = images[:, :, ::-1, channel]
    return mirrored
