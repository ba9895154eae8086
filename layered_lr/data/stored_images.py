"""Images that are not in memory: a batch's are read when the batch is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Float32, Int64

BLOCK_IMAGES = 64  # read together where all are read, one block after the other


class StoredImages(ABC):
    """Images that are read by their numbers; they are indexed like an array, and ``numpy.asarray`` reads all.

    Args:
        shape: ``(N, H, W, C)`` of uint8 images, ``(N, C, H, W)`` of float32 ones.
        dtype: uint8 or float32.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, chosen: Int64, epoch: int | None = None) -> Array:
        """Read images.

        Args:
            chosen: Their numbers, each from 0 to N - 1.
            epoch: Of the training batches that they are for; None outside of training.

        Returns:
            The images, newly allocated, of the dtype and the shape ``(len(chosen), *shape[1:])``.

        Raises:
            DataError: One of them cannot be read.
        """

    @abstractmethod
    def digest(self) -> str:
        """Hexadecimal digits that differ from those of other images."""

    @abstractmethod
    def statistics(self) -> tuple[Float32, Float32] | None:
        """Mean and standard deviation of each channel, divided by 255; None for float images."""

    def stream(self, batches: Iterable[Int64], epoch: int | None = None) -> Iterator[Array]:
        """Read one batch after the other; a subclass may read ahead.

        Args:
            batches: The numbers of the images of each.
            epoch: As for ``read``.
        """
        return (self.read(chosen, epoch) for chosen in batches)

    def blocks(self) -> Iterator[Array]:
        """Read all images in their order, some at a time."""
        numbers = np.arange(len(self))
        return self.stream(numbers[start : start + BLOCK_IMAGES] for start in range(0, len(self), BLOCK_IMAGES))

    def __getitem__(self, chosen: Any) -> Any:
        first, rest = (chosen[0], chosen[1:]) if isinstance(chosen, tuple) else (chosen, ())
        numbers = np.arange(len(self))[first]
        images = self.read(np.atleast_1d(numbers))
        place = (0 if np.ndim(numbers) == 0 else slice(None), *rest)
        return images[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = np.concatenate(list(self.blocks()))
        return whole if dtype is None else whole.astype(dtype, copy=False)
