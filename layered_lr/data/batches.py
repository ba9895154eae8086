"""Batches of a data set: shuffled, augmented and normalised in NumPy, the same for every backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.counts import whole_number
from layered_lr.data.augmentation import PADDING, Cropper
from layered_lr.data.dataset import Dataset
from layered_lr.data.normalisation import PairTable, normalisation_table, normalise
from layered_lr.data.random_draws import Crops, epoch_crops, epoch_order
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
        made = self._of_epoch(_Maker(self, self.dataset.x_train), epoch, start, 1)
        return ((images, labels) for images, labels, _ in made)

    def updates(
        self, together: int, start: int = 0, channels_last: bool = False
    ) -> Iterator[tuple[Images, Labels, int]]:
        """The batches of all epochs, put together to updates, without end.

        Args:
            together: Batches that make an update, >= 1; the last one of an epoch may have fewer.
            start: The first update to make, counted from the first epoch on.
            channels_last: Whether the memory of the images may be NHWC, the fastest to make; their shape is NCHW.

        Returns:
            An iterator of images and labels of an update, and how many batches they are.
        """
        maker = _Maker(self, self.dataset.x_train, channels_last)
        first, done = divmod(start, -(-self.steps_per_epoch // together))
        for epoch in itertools.count(first):
            yield from self._of_epoch(maker, epoch, done * together, together)
            done = 0

    def _of_epoch(self, maker: _Maker, epoch: int, start: int, together: int) -> Iterator[tuple[Images, Labels, int]]:
        size = len(self.dataset.y_train)
        order = epoch_order(self.seed, epoch, size)
        crops = None
        if self.augment:
            by_image = epoch_crops(self.seed, epoch, size, PADDING)
            crops = Crops(by_image.top[order], by_image.left[order], by_image.flip[order])
        for first in range(start, self.steps_per_epoch, together):
            parts = min(together, self.steps_per_epoch - first)
            place = slice(first * self.batch_size, (first + parts) * self.batch_size)
            chosen = order[place]
            its_crops = None if crops is None else Crops(crops.top[place], crops.left[place], crops.flip[place])
            yield maker.images(chosen, its_crops), self.dataset.y_train[chosen], parts

    def test(self, channels_last: bool = False) -> Iterator[tuple[Images, Labels, int]]:
        """The test set in its own order, never augmented, in batches of one size.

        Args:
            channels_last: As in ``updates``.

        Yields:
            Images and labels as in ``epoch``, and how many of them count: the last batch is filled up with images
            from the beginning of the test set, which come after the real ones.
        """
        size = len(self.dataset.y_test)
        maker = _Maker(self, self.dataset.x_test, channels_last)
        for first in range(0, size, self.batch_size):
            chosen = np.arange(first, first + self.batch_size) % size
            yield maker.images(chosen), self.dataset.y_test[chosen], min(self.batch_size, size - first)

    @cached_property
    def _pairs(self) -> PairTable | None:
        """What makes images whose memory is NHWC; None where they are not made so."""
        shape = self.dataset.x_train.shape[1:]
        return PairTable(self._table, shape) if self._table is not None and PairTable.fits(shape) else None


class _Maker:
    """Makes the batches of one iteration, with memory of its own for what lies between data set and batch.

    Args:
        batches: Whose.
        source: uint8 NHWC or float32 NCHW images of its data set.
        channels_last: As in ``Batches.updates``.
    """

    def __init__(self, batches: Batches, source: NDArray[Any], channels_last: bool = False) -> None:
        self._source = source
        self._table = batches._table
        self._pairs = batches._pairs if channels_last else None
        self._cropper = Cropper(source.shape[1:], source.dtype) if batches.augment else None

    def images(self, chosen: NDArray[np.int64], crops: Crops | None = None) -> Images:
        """The chosen images, cropped, flipped, normalised: float32 NCHW, newly allocated."""
        images = self._source[chosen]
        if crops is not None and self._cropper is not None:
            images = self._cropper.crop(images, crops)
        if self._table is None:
            return images
        return normalise(images, self._table) if self._pairs is None else self._pairs.normalise(images)
