"""A data set: training and test images with their labels, checked once, when it is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.data.arrays import as_images, as_labels
from layered_lr.data.normalisation import channel_statistics
from layered_lr.errors import DataError


class DatasetFacts(NamedTuple):
    """What a plan needs to know of a data set; ``image_shape`` is ``(C, H, W)``, whatever the layout in memory."""

    train_size: int
    test_size: int
    num_classes: int
    image_shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in memory, valid by construction.

    uint8 images are normalised per channel when batches are made, with the mean and deviation of the training
    images; float images are taken as already preprocessed and used as they are. The arrays are read-only views
    of those given, copied only where they have to be converted.

    Args:
        name: What messages and reports call it.
        x_train: ``(N, H, W, C)`` uint8 or ``(N, C, H, W)`` float of any width (kept as float32); any C >= 1.
        y_train: ``(N,)`` class numbers from 0, of any integer dtype (kept as int64); gaps are fine.
        x_test: Of the same H, W, C and the same kind as ``x_train``.
        y_test: As ``y_train``.
        augment: Whether batches crop and flip at random, unless told otherwise.

    Attributes:
        num_classes: The largest label of both parts plus 1, at least 2.
        mean: float32 ``(C,)``, of the training images / 255; None for float images.
        std: As ``mean``; 1 for a channel of one value throughout.

    Raises:
        DataError: an array is empty, of another dtype or shape, has NaN, or does not fit the others.
    """

    name: str
    x_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[Any] = field(repr=False)
    x_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[Any] = field(repr=False)
    augment: bool = False
    num_classes: int = field(init=False)
    mean: NDArray[np.float32] | None = field(init=False)
    std: NDArray[np.float32] | None = field(init=False)

    def __post_init__(self) -> None:
        """Check, convert, and work out what follows from the arrays."""
        try:
            values = _checked(self.x_train, self.y_train, self.x_test, self.y_test)
        except DataError as error:
            raise DataError(f"data {self.name!r}: {error}") from None
        y_largest = max(int(values["y_train"].max()), int(values["y_test"].max()))
        is_uint8 = values["x_train"].dtype == np.uint8
        mean, std = channel_statistics(values["x_train"]) if is_uint8 else (None, None)
        for name, value in {**values, "num_classes": max(2, y_largest + 1), "mean": mean, "std": std}.items():
            object.__setattr__(self, name, value)

    def digest(self) -> str:
        """What tells this data from other data, in 32 hexadecimal digits."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(f"{array.dtype} {array.shape};".encode())
            found.update(np.ascontiguousarray(array).view(np.uint8).data)
        return found.hexdigest()

    @property
    def facts(self) -> DatasetFacts:
        """Sizes, number of classes and ``(C, H, W)``."""
        return DatasetFacts(len(self.y_train), len(self.y_test), self.num_classes, _image_shape(self.x_train))


def _checked(x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> dict[str, NDArray[Any]]:
    values = {
        "x_train": as_images("x_train", x_train),
        "y_train": as_labels("y_train", y_train),
        "x_test": as_images("x_test", x_test),
        "y_test": as_labels("y_test", y_test),
    }
    for part in ("train", "test"):
        images, labels = len(values[f"x_{part}"]), len(values[f"y_{part}"])
        if images != labels:
            raise DataError(f"x_{part} has {images} images, but y_{part} {labels} labels: each image needs one.")
    train, test = values["x_train"], values["x_test"]
    if train.dtype != test.dtype:
        raise DataError(f"x_train is {train.dtype}, but x_test {test.dtype}: give both as uint8, or both as float.")
    if _image_shape(train) != _image_shape(test):
        raise DataError(
            f"x_train has images of (C, H, W) = {_image_shape(train)}, but x_test of {_image_shape(test)}: "
            "bring both to one size."
        )
    return values


def _image_shape(images: NDArray[Any]) -> tuple[int, int, int]:
    """``(C, H, W)`` of uint8 NHWC or float32 NCHW."""
    _, a, b, c = images.shape
    return (c, a, b) if images.dtype == np.uint8 else (a, b, c)
