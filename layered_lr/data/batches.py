"""Batches of a data set: shuffled, augmented and normalised in NumPy, the same for every backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.counts import whole_number
from layered_lr.data.augmentation import PADDING, crop_and_flip
from layered_lr.data.dataset import Dataset
from layered_lr.data.draws import Crops, epoch_crops, epoch_order
from layered_lr.data.normalisation import normalisation_table, normalise
from layered_lr.errors import SpecError

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]


class Batches:
    """The batches of each epoch, as a pure function of (data set, batch size, seed, epoch).

    Every array it yields is newly allocated and never written to again: OneFlow reads them asynchronously.

    Args:
        dataset: Where the images come from.
        batch_size: Images a batch, from 1 to the size of the training set.
        seed: Whole number >= 0 for the order and the augmentation.
        augment: Crop at random (padding 4) and flip; None for the data set's own default.

    Raises:
        SpecError: an argument outside of its range.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, augment: bool | None = None) -> None:
        self.dataset = dataset
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.seed = whole_number("seed", seed, 0)
        if augment is not None and not isinstance(augment, (bool, np.bool_)):
            raise SpecError(f"augment={augment!r}: augment must be true, false, or None for the data set's default.")
        self.augment = dataset.augment if augment is None else bool(augment)
        train_size = len(dataset.y_train)
        if self.batch_size > train_size:
            raise SpecError(
                f"batch_size={self.batch_size} is larger than the training set of data {dataset.name!r}, "
                f"which has {train_size} images: use a batch size from 1 to {train_size}."
            )
        self._table = None
        if dataset.mean is not None and dataset.std is not None:
            self._table = normalisation_table(dataset.mean, dataset.std)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch.

        The last images that fill no batch are dropped, since a compiled graph has one batch shape; each epoch is
        shuffled anew, so that no image is left out for good.
        """
        return len(self.dataset.y_train) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Images, Labels]]:
        """The training batches of one epoch.

        Args:
            epoch: 0-based.
            start: The first batch to make, 0-based: a resumed run goes on in mid-epoch without making those before.

        Returns:
            An iterator of images, float32 NCHW, C-contiguous, and labels, int64 ``(batch_size,)``.

        Raises:
            SpecError: ``epoch`` or ``start`` is no whole number >= 0, or ``start`` is beyond the epoch.
        """
        epoch, start = whole_number("epoch", epoch, 0), whole_number("start", start, 0)
        if start > self.steps_per_epoch:
            raise SpecError(f"start={start}: an epoch has {self.steps_per_epoch} batches, start at one of them.")
        return self._train_batches(epoch, start)

    def updates(self, together: int, start: int = 0) -> Iterator[tuple[Images, Labels, int]]:
        """The batches of all epochs, put together to updates, without end.

        Args:
            together: Batches that make an update, >= 1; the last one of an epoch may have fewer.
            start: The first update to make, counted from the first epoch on.

        Returns:
            An iterator of images and labels of an update, and how many batches they are.
        """
        first, done = divmod(start, -(-self.steps_per_epoch // together))
        for epoch in itertools.count(first):
            left = self.epoch(epoch, done * together)
            done = 0
            while parts := list(itertools.islice(left, together)):
                images, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
                yield images, labels, len(parts)

    def _train_batches(self, epoch: int, start: int) -> Iterator[tuple[Images, Labels]]:
        size = len(self.dataset.y_train)
        order = epoch_order(self.seed, epoch, size)
        crops = epoch_crops(self.seed, epoch, size, PADDING) if self.augment else None
        for step in range(start, self.steps_per_epoch):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = self._images(self.dataset.x_train, chosen, crops)
            yield images, self.dataset.y_train[chosen]

    def test(self) -> Iterator[tuple[Images, Labels, int]]:
        """The test set in its own order, never augmented, in batches of one size.

        Yields:
            Images and labels as in ``epoch``, and how many of them count: the last batch is filled up with images
            from the beginning of the test set, which come after the real ones.
        """
        size = len(self.dataset.y_test)
        for first in range(0, size, self.batch_size):
            chosen = np.arange(first, first + self.batch_size) % size
            images = self._images(self.dataset.x_test, chosen, None)
            yield images, self.dataset.y_test[chosen], min(self.batch_size, size - first)

    def _images(self, source: NDArray[Any], chosen: NDArray[np.int64], crops: Crops | None) -> Images:
        """The chosen images, cropped, flipped, normalised: float32 NCHW, newly allocated."""
        images = source[chosen]
        if self._table is not None:
            images = images.transpose(0, 3, 1, 2)  # NHWC -> NCHW
        if crops is not None:
            images = crop_and_flip(images, Crops(crops.top[chosen], crops.left[chosen], crops.flip[chosen]))
        return np.ascontiguousarray(images) if self._table is None else normalise(images, self._table)
