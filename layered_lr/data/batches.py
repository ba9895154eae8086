"""Batches of a data set: shuffled, augmented and normalised in NumPy, so that every backend gets the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Float32, Float64, Int64, Targets
from layered_lr.counts import whole_number
from layered_lr.data.augmentation import PADDING, Cropper
from layered_lr.data.dataset import Dataset
from layered_lr.data.mixing import Mixer, one_before
from layered_lr.data.normalisation import PairTable, normalisation_table, normalise
from layered_lr.data.random_draws import Crops, draw_choice, draw_crops, draw_order
from layered_lr.data.resizing import Resizer
from layered_lr.data.share import WHOLE
from layered_lr.data.stored_images import StoredImages
from layered_lr.data.targets import take
from layered_lr.data.transforms import as_augmentation, augment_images
from layered_lr.errors import SpecError


class Batches:
    """The batches of each epoch; they depend only on the data set, the batch size, the seed and the epoch.

    Every array that it yields is new and never changes afterwards, because OneFlow reads arrays asynchronously.

    Args:
        dataset: The data set.
        batch_size: Images in a batch, from 1 to the size of the training set.
        seed: Whole number >= 0 for the order of the images and the augmentation.
        augment: Whether to crop at random (padding 4) and flip; None takes the data set's own setting. A function
            augments each image by itself: it takes the image and a generator (``numpy.random.Generator``).
        image_size: Pixels of a side to resize the images to, after cropping; None leaves them.
        normalisation: Mean and standard deviation of each channel for uint8 images; None takes the data set's own.
        drop_last: Whether the last images of an epoch are left out if they do not fill a batch.
        sizes: Pixels of a side of training images, one of which is drawn for every ``sizes_every`` updates; none
            leaves them as ``image_size`` says. The test images are not concerned.
        sizes_every: For how many updates a size is kept.
        mixer: Mixes the images and labels of each update; None leaves them.

    Raises:
        SpecError: An argument is outside of its range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        augment: bool | Callable[..., Any] | None = None,
        image_size: int | None = None,
        normalisation: tuple[Float32, Float32] | None = None,
        drop_last: bool = True,
        sizes: Sequence[int] = (),
        sizes_every: int = 1,
        mixer: Mixer | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.seed = whole_number("seed", seed, 0, is_count=False)
        if augment is not None and not isinstance(augment, (bool, np.bool_)) and not callable(augment):
            raise SpecError(
                f"augment={augment!r}: must be True, False, a function of an image and a generator, or None for the "
                "data set's own setting."
            )
        self.transform = as_augmentation(augment) if callable(augment) else None
        self.augment = self.transform is None and bool(dataset.augment if augment is None else augment)
        self.drop_last, self.mixer = drop_last, mixer
        self.share = WHOLE  # of several processes, ``updates`` makes the images of one
        train_size = len(dataset.y_train)
        if self.batch_size > train_size:
            raise SpecError(
                f"batch_size={self.batch_size} is larger than the training set of data {dataset.name!r}, "
                f"which has {train_size} images: use a batch size from 1 to {train_size}."
            )
        self._table = None
        if dataset.mean is not None and dataset.std is not None:
            self._table = normalisation_table(*(normalisation or (dataset.mean, dataset.std)))
        channels, height, width = dataset.facts.image_shape
        self._resizer = None
        if image_size is not None and (height, width) != (image_size, image_size):
            self._resizer = Resizer(height, width, image_size)
        self.sizes, self._sizes_every = tuple(sizes), sizes_every
        self._resizers = {
            size: None if (height, width) == (size, size) else Resizer(height, width, size) for size in self.sizes
        }
        self.image_shape = (channels, height, width) if image_size is None else (channels, image_size, image_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch.

        By default the last images of an epoch are dropped if they do not fill a batch, because a compiled graph has one
        batch shape. Each epoch has another order, so that no image is always left out.
        """
        size = len(self.dataset.y_train)
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Float32, Targets]]:
        """Return the training batches of one epoch.

        Args:
            epoch: 0-based.
            start: The first batch to make, 0-based. A resumed run skips the batches before it.

        Returns:
            An iterator of images, float32 NCHW, C-contiguous, and targets: class numbers, int64 ``(batch_size,)``, or
            values or masks. The last batch is smaller if ``drop_last`` is false and the images do not fill it.

        Raises:
            SpecError: ``epoch`` or ``start`` is not a whole number >= 0, or ``start`` is after the end of the epoch.
        """
        epoch, start = whole_number("epoch", epoch, 0), whole_number("start", start, 0)
        if start > self.steps_per_epoch:
            raise SpecError(f"start={start}: must be 0 to {self.steps_per_epoch}, the number of batches in an epoch.")
        made = self._of_epoch(_Maker(self, self.dataset.x_train), epoch, start, 1)
        return ((images, labels) for images, labels, _ in made)

    def updates(
        self, together: int, start: int = 0, channels_last: bool = False
    ) -> Iterator[tuple[Float32, Targets, int]]:
        """Yield the batches of every update, epoch after epoch, without end.

        Args:
            together: Batches that make one update, >= 1; the last update of an epoch may have fewer.
            start: The first update to yield, counted from the start of the run.
            channels_last: Whether the memory of the images may be NHWC, which is the fastest to make. Their shape is
                NCHW in both cases.

        Yields:
            The images and labels of an update, and how many batches they are. Labels that a mixer has mixed are the
            share of each class, float64 (N, classes).
        """
        maker = _Maker(self, self.dataset.x_train, channels_last)
        first, done = divmod(start, -(-self.steps_per_epoch // together))
        for epoch in itertools.count(first):
            yield from self._of_epoch(maker, epoch, done * together, together)
            done = 0

    def _of_epoch(self, maker: _Maker, epoch: int, start: int, together: int) -> Iterator[tuple[Float32, Targets, int]]:
        size = len(self.dataset.y_train)
        order = draw_order(self.seed, epoch, size)
        crops = None
        if self.augment:
            by_image = draw_crops(self.seed, epoch, size, PADDING)
            crops = Crops(by_image.top[order], by_image.left[order], by_image.flip[order])
        firsts = range(start, self.steps_per_epoch, together)
        ends = [min(first + together, self.steps_per_epoch) for first in firsts]
        places = [self._places(first, end) for first, end in zip(firsts, ends, strict=True)]
        per_epoch = -(-self.steps_per_epoch // together)
        given = maker.read((order[place] for place in places), epoch)
        for first, end, place, images in zip(firsts, ends, places, given, strict=True):
            chosen = order[place]
            cut = None if crops is None else Crops(crops.top[place], crops.left[place], crops.flip[place])
            if self.transform is not None:
                images = augment_images(images, chosen, self.transform, self.seed, epoch)
            update = epoch * per_epoch + first // together
            made, labels = maker.finish(images, cut, self.size_of_update(update)), take(self.dataset.y_train, chosen)
            if self.mixer is not None:
                yield *self._mix(self.mixer, made, labels, update), end - first
            else:
                yield made, labels, end - first

    def _places(self, first: int, end: int) -> slice | Int64:
        """Where an update's images are in the order of the epoch: of several processes, those of this one.

        With a mixer, those that they are mixed with come after them, if another process has them.
        """
        if self.share.count == 1:
            return slice(first * self.batch_size, end * self.batch_size)
        begin = first * self.batch_size
        images = min(end * self.batch_size, len(self.dataset.y_train)) - begin
        own = self.share.rows(images, end - first)
        return begin + (own if self.mixer is None else np.concatenate([own, one_before(images)[own]]))

    def _mix(self, mixer: Mixer, images: Float32, labels: Int64, update: int) -> tuple[Float32, Float64]:
        """Mix the images of an update, and their labels."""
        if self.share.count == 1:
            before = one_before(len(labels))
            others, theirs = images[before], labels[before]
        else:
            (images, others), (labels, theirs) = np.split(images, 2), np.split(labels, 2)
        draw = mixer.draw(update, *images.shape[2:])
        return mixer.mix(images, others, draw), mixer.mix_labels(labels, theirs, draw)

    def images_of_update(self, update: int, together: int) -> int:
        """How many images an update has, in all processes.

        Args:
            update: 0-based, counted from the start of the run.
            together: Batches that make one update, >= 1.
        """
        first = update % -(-self.steps_per_epoch // together) * together
        end = min(first + together, self.steps_per_epoch)
        return min(end * self.batch_size, len(self.dataset.y_train)) - first * self.batch_size

    def size_of_update(self, update: int) -> int | None:
        """Pixels of a side of an update's images; None without ``sizes``.

        Args:
            update: 0-based, counted from the start of the run.
        """
        if not self.sizes:
            return None
        return self.sizes[draw_choice(self.seed, update // self._sizes_every, len(self.sizes))]

    def test(self, channels_last: bool = False) -> Iterator[tuple[Float32, Targets, int]]:
        """Yield the test set in its own order, without augmentation, in batches of equal size.

        Args:
            channels_last: Whether the memory of the images may be NHWC; their shape is NCHW in both cases.

        Yields:
            Images, float32 NCHW, targets, int64 ``(batch_size,)`` or those of another kind, and how many of them count.
            The last batch is filled up at its end with images from the beginning of the test set.
        """
        size = len(self.dataset.y_test)
        maker = _Maker(self, self.dataset.x_test, channels_last)
        firsts = range(0, size, self.batch_size)
        batches = [np.arange(first, first + self.batch_size) % size for first in firsts]
        for first, chosen, images in zip(firsts, batches, maker.read(batches, None), strict=True):
            yield maker.finish(images), take(self.dataset.y_test, chosen), min(self.batch_size, size - first)

    def test_at(self, size: int) -> Float32:
        """Return the first test images as an update of that size would get them, ``(batch_size, C, size, size)``."""
        maker = _Maker(self, self.dataset.x_test)
        chosen = np.arange(self.batch_size) % len(self.dataset.y_test)
        return maker.finish(next(maker.read([chosen], None)), size=size)

    @cached_property
    def _pairs(self) -> PairTable | None:
        """The table that makes images whose memory is NHWC; None if these images cannot be made so."""
        shape = self.dataset.x_train.shape[1:]
        return PairTable(self._table, shape) if self._table is not None and PairTable.fits(shape) else None


class _Maker:
    """Makes the batches of one iteration; it has its own memory for the images between the data set and the batch.

    Args:
        batches: The batches to make.
        source: Images of the data set, uint8 NHWC or float32 NCHW.
        channels_last: Whether the memory of the batch's images may be NHWC.
    """

    def __init__(self, batches: Batches, source: Array, channels_last: bool = False) -> None:
        self._source = source
        self._table = batches._table
        self._resizer, self._resizers = batches._resizer, batches._resizers
        self._pairs = batches._pairs if channels_last and (batches._resizer is None or batches.sizes) else None
        self._cropper = Cropper(source.shape[1:], source.dtype) if batches.augment else None

    def read(self, batches: Iterable[Int64], epoch: int | None) -> Iterator[Array]:
        """Yield the images of each batch as the data set has them, newly allocated."""
        if isinstance(self._source, StoredImages):
            return self._source.stream(batches, epoch)
        return (self._source[chosen] for chosen in batches)

    def finish(self, images: Array, crops: Crops | None = None, size: int | None = None) -> Float32:
        """Return images cropped, flipped, normalised and resized: float32 NCHW, newly allocated.

        Args:
            images: From ``read``.
            crops: Of each image; None leaves them whole.
            size: One of the sizes of training images; None takes the run's image size.
        """
        if crops is not None and self._cropper is not None:
            images = self._cropper.crop(images, crops)
        resizer = self._resizer if size is None else self._resizers[size]
        if self._table is not None:
            fast = self._pairs if resizer is None else None
            images = normalise(images, self._table) if fast is None else fast.normalise(images)
        return images if resizer is None else resizer.resize(images)
