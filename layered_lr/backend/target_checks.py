"""Checks of a batch's targets that are no class numbers, before a framework sees them."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Array
from layered_lr.errors import DataError


def check_numbers(images: int, targets: Array, shape: tuple[int, ...] | None) -> None:
    """Refuse values or masks that do not go with a batch.

    Args:
        images: How many there are.
        targets: Of the batch.
        shape: Of each image's target in the batches before; None at the first one.

    Raises:
        DataError: There is not one target for each image, their shape has changed, or a value is not finite.
    """
    if images == 0 or len(targets) != images or shape not in (None, targets.shape[1:]):
        raise DataError(
            f"a batch of {images} images with targets of shape {targets.shape}: each image must have one target, and "
            "all must have one shape."
        )
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise DataError("a batch has targets that are NaN or infinite.")
