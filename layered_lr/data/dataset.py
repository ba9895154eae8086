"""A data set: training and test images with their labels, checked once, when it is created."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float32
from layered_lr.data.arrays import as_images
from layered_lr.data.normalisation import channel_statistics
from layered_lr.data.stored_images import StoredImages
from layered_lr.data.targets import CLASSES, TargetFacts, alike, as_targets, count_mask_classes, find_facts
from layered_lr.errors import DataError
from layered_lr.printed import shown


class DatasetFacts(NamedTuple):
    """What a plan needs to know about a data set.

    Args:
        train_size: Training images.
        test_size: Test images.
        num_classes: Of class numbers and masks; 0 for values.
        image_shape: ``(C, H, W)``, for every layout in memory.
        targets: What the images are to be: class numbers, values or masks.
    """

    train_size: int
    test_size: int
    num_classes: int
    image_shape: tuple[int, int, int]
    targets: TargetFacts = CLASSES

    @property
    def has_classes(self) -> bool:
        """Whether each image has a class number, and not values or a mask."""
        return self.targets.kind == "classes"

    @property
    def label_classes(self) -> int:
        """Classes that each image has one of; 0 where the targets are values or masks."""
        return self.num_classes if self.has_classes else 0

    @property
    def outputs(self) -> int:
        """How many numbers a model answers with: one for each class, or for each value."""
        return self.targets.width if self.targets.kind == "values" else self.num_classes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and what they are to be; a data set that exists is valid.

    Targets are class numbers; or floats of any shape, for a regression; or 0 and 1 for several labels of an image; or
    masks with the class of each pixel. Whatever is no class numbers needs a loss of its own: ``run(loss=...)``.

    uint8 images are normalised for each channel when batches are made, with the mean and standard deviation of the
    training images. Float images are used as they are: they must be preprocessed already. The arrays are read-only
    views of the given arrays, or copies where they had to be converted. An array that ``numpy.load(mmap_mode="r")``
    has mapped stays on the disk if its dtype is uint8 or float32. The images of a folder, or of a data set of torch,
    that do not fit into memory are ``StoredImages``: they are indexed like an array, and each batch reads its own.

    Args:
        name: The name for messages and reports.
        x_train: ``(N, H, W, C)`` uint8 or ``(N, C, H, W)`` float of any width (kept as float32); any C >= 1.
        y_train: ``(N,)`` class numbers from 0, of any integer dtype (kept as int64); a class may have no images. Or
            floats ``(N, ...)`` (kept as float32 or float64). Or 0 and 1, ``(N, k)`` (kept as float32). Or integers
            ``(N, H, W)``, in which 255 and negative numbers stand for pixels without a class.
        x_test: Images with the same H, W, C and the same kind of dtype as ``x_train``.
        y_test: The targets of ``x_test``, like ``y_train``.
        augment: Whether batches crop and flip at random if the run does not say.
        class_names: A name for each class, in the order of the class numbers, or for each of k values; None where they
            have none.

    Attributes:
        num_classes: The number of class names; without names the largest label of both parts plus 1, at least 2. 0
            where the targets are values.
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
    class_names: tuple[str, ...] | None = None
    num_classes: int = field(init=False)
    mean: Float32 | None = field(init=False)
    std: Float32 | None = field(init=False)

    def __post_init__(self) -> None:
        """Check and convert the arrays, and compute the other fields from them."""
        try:
            values = _check_arrays(self.x_train, self.y_train, self.x_test, self.y_test)
            facts = find_facts(values["y_train"])
            if facts.is_spatial and self.augment:
                raise DataError(
                    f"augment=True with {facts.describe()}: crops and flips would move the images, and not what lies "
                    "over them. Leave augment out."
                )
            num_classes, names = _count_classes(facts, self.class_names, values["y_train"], values["y_test"])
        except DataError as error:
            raise DataError(f"data {self.name!r}: {error}") from None
        mean, std = _statistics(values["x_train"])
        computed = {"class_names": names, "num_classes": num_classes, "mean": mean, "std": std}
        for name, value in {**values, **computed}.items():
            object.__setattr__(self, name, value)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that differ from those of any other data."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(f"{array.dtype} {array.shape};".encode())
            if isinstance(array, StoredImages):
                found.update(array.digest().encode())
            else:
                found.update(np.ascontiguousarray(array).view(np.uint8).data)
        return found.hexdigest()

    @property
    def facts(self) -> DatasetFacts:
        """The sizes, the number of classes, ``(C, H, W)``, and what the targets are."""
        shape, targets = _image_shape(self.x_train), find_facts(self.y_train)
        return DatasetFacts(len(self.y_train), len(self.y_test), self.num_classes, shape, targets)


def _statistics(images: Any) -> tuple[Float32 | None, Float32 | None]:
    """Mean and standard deviation of each channel; None for float images."""
    if isinstance(images, StoredImages):
        return images.statistics() or (None, None)
    return channel_statistics(images) if images.dtype == np.uint8 else (None, None)


def _count_classes(facts: TargetFacts, names: object, *targets: Array) -> tuple[int, tuple[str, ...] | None]:
    """How many classes there are, 0 for values, and what each is called.

    Raises:
        DataError: The names are not different words, or not as many as classes or values.
    """
    listed = None if names is None else _list_names(names)
    if facts.kind == "values":
        if listed is not None and facts.shape != (len(listed),):
            raise DataError(f"class_names has {len(listed)} names, but the targets are {facts.describe()}.")
        return 0, listed
    largest = count_mask_classes(*targets) - 1 if facts.kind == "masks" else max(int(each.max()) for each in targets)
    if listed is None:
        return max(2, largest + 1), None
    if len(listed) < 2:
        raise DataError(f"class_names has {len(listed)} names: a classifier needs two classes or more.")
    if len(listed) <= largest:
        raise DataError(
            f"class_names has {len(listed)} names, but the largest label is {largest}: give {largest + 1} names, in "
            "the order of the class numbers."
        )
    return len(listed), listed


def _list_names(names: object) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        DataError: They are not different words.
    """
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        raise DataError(f"class_names={shown(names)}: must be a list of names, one for each class.")
    listed = tuple(str(name) if isinstance(name, np.str_) else name for name in names)
    odd = [name for name in listed if not isinstance(name, str) or not name]
    if odd or len(set(listed)) < len(listed):
        wrong = odd[0] if odd else next(name for name in listed if listed.count(name) > 1)
        raise DataError(
            f"class_names has {shown(wrong)}: each class needs a name of its own, a text that is not empty."
        )
    return listed


def _check_arrays(x_train: object, y_train: object, x_test: object, y_test: object) -> dict[str, Array]:
    values = {
        "x_train": _as_images("x_train", x_train),
        "y_train": as_targets("y_train", y_train),
        "x_test": _as_images("x_test", x_test),
        "y_test": as_targets("y_test", y_test),
    }
    for part in ("train", "test"):
        images, labels = len(values[f"x_{part}"]), len(values[f"y_{part}"])
        if images != labels:
            raise DataError(f"x_{part} has {images} images, but y_{part} has {labels} labels: each image needs one.")
    values["y_train"], values["y_test"] = alike(values["y_train"], values["y_test"])
    train, test = values["x_train"], values["x_test"]
    if train.dtype != test.dtype:
        raise DataError(f"x_train is {train.dtype}, but x_test is {test.dtype}: give both as uint8, or both as float.")
    if _image_shape(train) != _image_shape(test):
        raise DataError(
            f"x_train has images of (C, H, W) = {_image_shape(train)}, but x_test has images of {_image_shape(test)}: "
            "bring both to one size."
        )
    return values


def _as_images(name: str, value: object) -> Any:
    return value if isinstance(value, StoredImages) else as_images(name, value)


def _image_shape(images: Array) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` of uint8 NHWC or float32 NCHW images."""
    _, a, b, c = images.shape
    return (c, a, b) if images.dtype == np.uint8 else (a, b, c)
