"""What the images of a data set are to be: class numbers, values of any shape, or masks with a class for each pixel."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np

from layered_lr.arrays import FLOAT32_MAX, Array
from layered_lr.data.arrays import MAX_CLASSES, as_array, as_labels, read_only
from layered_lr.errors import DataError

TargetKind: TypeAlias = Literal["classes", "values", "masks"]
"""``"classes"``: a class number for each image. ``"values"``: floats, for a regression or for several labels of each
image. ``"masks"``: a class number for each pixel."""

IGNORED: Final = 255
"""The number that pixels without a class have in masks; negative numbers stand for the same."""

_ROWS_TOGETHER = 4096  # of targets that are looked at at once


class TargetFacts(NamedTuple):
    """What the targets of a data set are.

    Args:
        kind: Class numbers, values or masks.
        shape: Of one image's target: ``()`` for a single number.

    Example:
        >>> TargetFacts("values", (3,)).describe()
        '3 values for each image'
    """

    kind: TargetKind = "classes"
    shape: tuple[int, ...] = ()

    @property
    def is_spatial(self) -> bool:
        """Whether the target of an image lies over its pixels, so that it would have to move with them."""
        return len(self.shape) >= 2

    @property
    def width(self) -> int:
        """How many numbers values ask of a model: for each image, or for each pixel of spatial ones."""
        return math.prod(self.shape) if len(self.shape) < 2 else 1 if len(self.shape) == 2 else self.shape[0]

    def describe(self) -> str:
        """What the targets are, in words."""
        if self.kind == "classes":
            return "a class number for each image"
        shape = f" of shape {self.shape}" if self.is_spatial else ""
        if self.kind == "masks":
            return f"a mask of class numbers for each image,{shape}"
        return (
            f"values{shape} for each image" if shape else f"{self.width} value{'s' * (self.width > 1)} for each image"
        )


CLASSES: Final = TargetFacts()


def as_targets(name: str, value: object) -> Array:
    """Check targets, and convert them to the dtype that batches are made from.

    Args:
        name: The name of the array for errors, e.g. ``"y_train"``.
        value: Class numbers ``(N,)`` of any integer dtype; floats of any shape ``(N, ...)``; 0 and 1 of shape
            ``(N, k)``, of any dtype; or masks of integers, ``(N, H, W)``.

    Returns:
        int64 class numbers, float32 or float64 values, or masks of the integer dtype that was given; read-only, and a
        view of ``value`` if no copy is needed.

    Raises:
        DataError: Another dtype or number of axes, no targets, a class number out of range, or a value that is not
            finite.
    """
    array = as_array(name, value)
    if array.ndim < 1 or array.dtype.kind not in "biuf" or (array.ndim == 1 and array.dtype.kind in "biu"):
        return as_labels(name, array)
    received = f"Received {array.dtype} of shape {array.shape}."
    if array.size == 0:
        raise DataError(f"{name} is empty: at least one target is needed. {received}")
    if array.dtype.kind == "f":
        return _as_values(name, array, received)
    if array.ndim == 2:
        if array.min() < 0 or array.max() > 1:
            raise DataError(
                f"{name} must have 1 axis, with one class number for each image: take y[:, 0] of a column. Several "
                "labels of an image are 0 and 1, of shape (N, labels); other numbers to predict are floats: "
                f".astype('float32'). {received}"
            )
        return read_only(array.astype(np.float32))
    return _as_masks(name, array, received)


def find_facts(targets: Array) -> TargetFacts:
    """Tell what targets are that ``as_targets`` has made."""
    if targets.dtype.kind == "f":
        return TargetFacts("values", targets.shape[1:])
    return TargetFacts("classes" if targets.ndim == 1 else "masks", targets.shape[1:])


def alike(train: Array, test: Array) -> tuple[Array, Array]:
    """Bring the targets of both parts to one dtype.

    Raises:
        DataError: They are of different kinds or shapes.
    """
    of_train, of_test = find_facts(train), find_facts(test)
    if of_train != of_test:
        raise DataError(
            f"y_train has {of_train.describe()} ({train.dtype}), but y_test has {of_test.describe()} ({test.dtype}): "
            "give targets of one kind and shape. Class numbers are whole numbers: .astype('int64') makes them, and "
            ".astype('float32') values."
        )
    dtype = np.result_type(train.dtype, test.dtype)
    return (train, test) if train.dtype == test.dtype else (train.astype(dtype), test.astype(dtype))


def count_mask_classes(*masks: Array) -> int:
    """The largest class number in masks plus 1, at least 2; pixels without a class do not count.

    Raises:
        DataError: No pixel has a class.
    """
    largest = -1
    for mask in masks:
        for start in range(0, len(mask), _ROWS_TOGETHER):
            part = mask[start : start + _ROWS_TOGETHER]
            largest = max(largest, int(part[part != IGNORED].astype(np.int64).max(initial=-1)))
    if largest < 0:
        raise DataError(
            f"the masks have no class numbers: every pixel is {IGNORED} or negative, which stands for none."
        )
    return max(2, largest + 1)


def list_ignored(classes: int, *masks: Array) -> tuple[int, ...]:
    """The numbers in masks that are no classes, from ``-1`` down and from ``classes`` up."""
    found: set[int] = set()
    for mask in masks:
        for start in range(0, len(mask), _ROWS_TOGETHER):
            part = mask[start : start + _ROWS_TOGETHER]
            found.update(np.unique(part[(part < 0) | (part >= classes)]).tolist())
    return tuple(sorted(found))


def take(targets: Array, chosen: Any) -> Array:
    """Take the targets of some images, in new memory; class numbers are int64."""
    found: Array = targets[chosen]
    return found if found.dtype.kind == "f" else found.astype(np.int64, copy=False)


def _as_values(name: str, array: Array, received: str) -> Array:
    wide = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    for start in range(0, len(wide), _ROWS_TOGETHER):
        part = wide[start : start + _ROWS_TOGETHER]
        good = (np.abs(part) <= FLOAT32_MAX).reshape(len(part), -1).all(axis=1)  # not of NaN
        if not good.all():
            raise DataError(
                f"{name} has a value that is NaN, infinite or too large for float32, the first at index "
                f"{start + int(np.argmin(good))}: repair or leave out those images. {received}"
            )
    return read_only(wide)


def _as_masks(name: str, array: Array, received: str) -> Array:
    if array.dtype.kind == "b":
        raise DataError(
            f"{name} must be numbers: of masks of true and false .astype('int64') makes a class for each pixel (for "
            f"cross-entropy), and .astype('float32') makes values (for binary cross-entropy). {received}"
        )
    largest = int(array.max())
    if largest >= MAX_CLASSES:
        raise DataError(f"{name} has a pixel of class {largest}: class numbers are 0 to {MAX_CLASSES - 1}. {received}")
    return read_only(array if array.dtype.itemsize <= 8 and array.dtype != np.uint64 else array.astype(np.int64))
