"""Random crop and horizontal flip of a batch, as torchvision's ``RandomCrop(size, padding=4)`` does it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from layered_lr.data.draws import Crops

PADDING = 4


def crop_and_flip(images: NDArray[Any], crops: Crops) -> NDArray[Any]:
    """Pad each image with zeros, cut its own window of the old size out of it, and flip it left to right or not.

    Args:
        images: ``(B, C, H, W)``, any dtype and strides. Zero is black in uint8 images, which are normalised
            afterwards; in preprocessed float images it is what 0 means there.
        crops: One of each per image: offsets in ``0..2*PADDING``.

    Returns:
        ``(B, C, H, W)`` of the same dtype, newly allocated.
    """
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * PADDING, width + 2 * PADDING), dtype=images.dtype)
    padded[:, :, PADDING : PADDING + height, PADDING : PADDING + width] = images
    rows = sliding_window_view(padded, height, axis=2)  # (B, C, 9, W + 8, H)
    windows = sliding_window_view(rows, width, axis=3)  # (B, C, 9, 9, H, W), nothing copied yet
    cropped: NDArray[Any] = windows.transpose(0, 2, 3, 1, 4, 5)[np.arange(count), crops.top, crops.left]
    cropped[crops.flip] = cropped[crops.flip, :, :, ::-1]
    return cropped
