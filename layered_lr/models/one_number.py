"""The refusal of a batch of which a batch normalisation gets one number of each channel, in training."""

from __future__ import annotations

from collections.abc import Sequence

from layered_lr.errors import DataError


def refuse_one_number(shape: Sequence[int]) -> DataError:
    """Make the error for what a batch normalisation gets.

    Args:
        shape: Of that.
    """
    return DataError(
        f"model: a batch normalisation gets one number of each channel in training, in shape {tuple(shape)}, and one "
        "number has no variance. Train on more images at once, or on larger ones."
    )
