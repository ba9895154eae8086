"""The images of samples, read one by one, each with generators that begin at a seed of epoch and sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Float32, Int64
from layered_lr.data.normalisation import ChannelSums
from layered_lr.data.random_draws import make_generator
from layered_lr.data.stored_images import StoredImages
from layered_lr.data.transforms import seeded_generators
from layered_lr.errors import DataError

_OUTSIDE_OF_TRAINING = 2**40  # stands for the epoch where there is none
_DIGESTED_IMAGES = 64


class SampleImages(StoredImages):
    """Images of samples; what a sample has to be was checked at the first one.

    Args:
        read_sample: Gives image and target of a sample.
        numbers: Which samples these images are.
        labels: The target of each image, as ``Dataset`` keeps it.
        shape: Of each image.
        dtype: Of each image.
        seed: Of random transforms.
    """

    def __init__(
        self,
        read_sample: Callable[[int], tuple[Array, Array]],
        numbers: Int64,
        labels: Array,
        shape: tuple[int, ...],
        dtype: Any,
        seed: int,
    ) -> None:
        super().__init__((len(numbers), *shape), dtype)
        self._read_sample, self._numbers, self._labels, self._seed = read_sample, numbers, labels, seed
        self._statistics: tuple[Float32, Float32] | None = None

    def read(self, chosen: Int64, epoch: int | None = None) -> Array:
        """Read images; see ``StoredImages.read``."""
        images = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, index in enumerate(chosen.tolist()):
            images[place] = self._read_one(index, _OUTSIDE_OF_TRAINING if epoch is None else epoch)
        return images

    def _read_one(self, index: int, epoch: int) -> Array:
        number = int(self._numbers[index])
        with seeded_generators(int(make_generator(self._seed, epoch, number).integers(2**32))):
            image, label = self._read_sample(number)
        if image.shape != self.shape[1:] or image.dtype != self.dtype:
            raise DataError(
                f"sample {number}: its image is {image.dtype} of shape {image.shape}, but the first one is "
                f"{self.dtype} of shape {self.shape[1:]}. Bring all to one size: a transform of the data set, or "
                "ll.Samples(..., size=...) for Pillow images."
            )
        if not np.array_equal(label.astype(self._labels.dtype), self._labels[index]):
            says = (f"is {label}", f"says {self._labels[index]}") if label.ndim == 0 else ("differs", "has another one")
            raise DataError(
                f"sample {number}: its label {says[0]}, but the data set's list of labels {says[1]}. A label must be "
                "the same whenever it is read."
            )
        return image

    def statistics(self) -> tuple[Float32, Float32] | None:
        """Mean and deviation of each channel of uint8 images, of all of them; see ``StoredImages.statistics``."""
        if self.dtype == np.uint8 and self._statistics is None:
            sums = ChannelSums(self.shape[1:])
            for images in self.blocks():
                sums.add(images)
            self._statistics = sums.statistics()
        return self._statistics

    def digest(self) -> str:
        """Of all labels, and of 64 images at equal distances."""
        found = hashlib.blake2b(f"{self.dtype} {self.shape};".encode(), digest_size=16)
        found.update(self._labels.tobytes())
        count = min(len(self), _DIGESTED_IMAGES)
        found.update(self.read(np.arange(count) * len(self) // count).tobytes())
        return found.hexdigest()
