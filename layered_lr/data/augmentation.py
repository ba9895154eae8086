"""Random crop and horizontal flip of a batch, like torchvision's ``RandomCrop(size, padding=4)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from layered_lr.arrays import Array
from layered_lr.data.random_draws import Crops

PADDING = 4


class Cropper:
    """Pads images with zeros, cuts a window of the old size out of each, and flips some of them left to right.

    In uint8 images, which are normalised afterwards, zero is black; in preprocessed float images it is whatever 0
    means there. Each call uses the memory of the padded images again, so one object must serve only one iteration.

    Args:
        shape: ``(H, W, C)`` for uint8 images, ``(C, H, W)`` for float images.
        dtype: The dtype of the images.
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
        # (N, 9, 9, *shape): the window of each image at each offset, without a copy
        self._windows: Array = np.ndarray(
            (count, 2 * PADDING + 1, 2 * PADDING + 1, *self._shape),
            self._dtype,
            padded,
            strides=(by_image, *places, *strides),
        )
        self._numbers = np.arange(count)

    def crop(self, images: Array, crops: Crops) -> Array:
        """Cut one window out of each image, and flip those that are to be flipped.

        Args:
            images: ``(N, *shape)``.
            crops: An offset in ``0..2*PADDING`` and a flip for each image.

        Returns:
            ``(N, *shape)``, newly allocated.
        """
        count = len(images)
        if count > len(self._numbers):
            self._make(count)
        self._inside[:count] = images
        cropped: Array = self._windows[self._numbers[:count], crops.top, crops.left]
        flipped = np.flatnonzero(crops.flip)
        cropped[flipped] = _mirror(cropped[flipped]) if self._rows == 1 else cropped[flipped, :, :, ::-1]
        return cropped


def _mirror(images: Array) -> Array:
    """Flip uint8 NHWC images left to right, channel by channel: copying pixels of three bytes would be slower."""
    mirrored = np.empty_like(images)
    for channel in range(images.shape[3]):
        mirrored[..., channel] = images[:, :, ::-1, channel]
    return mirrored
