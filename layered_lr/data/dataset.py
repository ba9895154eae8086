"""A data set: training and test images with their labels, checked once, when it is created."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float32
from layered_lr.data.arrays import as_images, as_labels
from layered_lr.data.normalisation import channel_statistics
from layered_lr.errors import DataError


class DatasetFacts(NamedTuple):
    """What a plan needs to know about a data set; ``image_shape`` is ``(C, H, W)`` for every layout in memory."""

    train_size: int
    test_size: int
    num_classes: int
    image_shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in memory; a data set that exists is valid.

    uint8 images are normalised for each channel when batches are made, with the mean and standard deviation of the
    training images. Float images are used as they are: they must be preprocessed already. The arrays are read-only
    views of the given arrays, or copies where they had to be converted.

    Args:
        name: The name for messages and reports.
        x_train: ``(N, H, W, C)`` uint8 or ``(N, C, H, W)`` float of any width (kept as float32); any C >= 1.
        y_train: ``(N,)`` class numbers from 0, of any integer dtype (kept as int64). A class may have no images.
        x_test: Images with the same H, W, C and the same kind of dtype as ``x_train``.
        y_test: The labels of ``x_test``, like ``y_train``.
        augment: Whether batches crop and flip at random if the run does not say.

    Attributes:
        num_classes: The largest label of both parts plus 1, at least 2.
        mean: float32 ``(C,)``, the mean of the training images / 255; None for float images.
        std: float32 ``(C,)``, their standard deviation, or 1 for a channel with a single value; None for float images.

    Raises:
        DataError: An array is empty, has another dtype or shape, contains NaN, or does not fit the other arrays.

    Example:
        >>> import layered_lr as ll
        >>> import numpy as np
        >>> images = np.zeros((6, 32, 32, 3), np.uint8)
        >>> labels = np.array([0, 1, 2, 0, 1, 2])
        >>> data = ll.Dataset("black", images, labels, images[:2], labels[:2])
        >>> data.num_classes, data.facts.image_shape
        (3, (3, 32, 32))
    """

    name: str
    x_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    augment: bool = False
    num_classes: int = field(init=False)
    mean: Float32 | None = field(init=False)
    std: Float32 | None = field(init=False)

    def __post_init__(self) -> None:
        """Check and convert the arrays, and compute the other fields from them."""
        try:
            values = _check_arrays(self.x_train, self.y_train, self.x_test, self.y_test)
        except DataError as error:
            raise DataError(f"data {self.name!r}: {error}") from None
        y_largest = max(int(values["y_train"].max()), int(values["y_test"].max()))
        is_uint8 = values["x_train"].dtype == np.uint8
        mean, std = channel_statistics(values["x_train"]) if is_uint8 else (None, None)
        for name, value in {**values, "num_classes": max(2, y_largest + 1), "mean": mean, "std": std}.items():
            object.__setattr__(self, name, value)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that differ from those of any other data."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(f"{array.dtype} {array.shape};".encode())
            found.update(np.ascontiguousarray(array).view(np.uint8).data)
        return found.hexdigest()

    @property
    def facts(self) -> DatasetFacts:
        """The sizes, the number of classes and ``(C, H, W)``."""
        return DatasetFacts(len(self.y_train), len(self.y_test), self.num_classes, _image_shape(self.x_train))


def _check_arrays(x_train: object, y_train: object, x_test: object, y_test: object) -> dict[str, Array]:
    values = {
        "x_train": as_images("x_train", x_train),
        "y_train": as_labels("y_train", y_train),
        "x_test": as_images("x_test", x_test),
        "y_test": as_labels("y_test", y_test),
    }
    for part in ("train", "test"):
        images, labels = len(values[f"x_{part}"]), len(values[f"y_{part}"])
        if images != labels:
            raise DataError(f"x_{part} has {images} images, but y_{part} has {labels} labels: each image needs one.")
    train, test = values["x_train"], values["x_test"]
    if train.dtype != test.dtype:
        raise DataError(f"x_train is {train.dtype}, but x_test is {test.dtype}: give both as uint8, or both as float.")
    if _image_shape(train) != _image_shape(test):
        raise DataError(
            f"x_train has images of (C, H, W) = {_image_shape(train)}, but x_test has images of {_image_shape(test)}: "
            "bring both to one size."
        )
    return values


def _image_shape(images: Array) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` of uint8 NHWC or float32 NCHW images."""
    _, a, b, c = images.shape
    return (c, a, b) if images.dtype == np.uint8 else (a, b, c)
