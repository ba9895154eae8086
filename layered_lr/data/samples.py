"""Data that are read sample by sample: a data set of torch, of Hugging Face, or any sequence of images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from layered_lr.arrays import Array, Int64
from layered_lr.counts import whole_number
from layered_lr.data.arrays import as_images, swap_of, widened
from layered_lr.data.dataset import Dataset
from layered_lr.data.decoding import FITS, BadImage, Decoder, Fit
from layered_lr.data.loaders import is_called_loader
from layered_lr.data.random_draws import draw_split
from layered_lr.data.sample_images import SampleImages
from layered_lr.data.sample_labels import find_class_names, find_labels, read_target, stack_targets
from layered_lr.data.targets import as_targets, find_facts
from layered_lr.errors import DataError, LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.printed import shown
from layered_lr.scalars import read_number
from layered_lr.yes_or_no import check_yes_or_no

_IMAGES = ("image", "img", "images", "pixel_values", "x")
_LABELS = ("label", "labels", "fine_label", "target", "y")


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that are read by their numbers, such as a ``Dataset`` of torch or of Hugging Face.

    It is what ``data=`` takes; ``data=(train, test)`` and ``data=train`` stand for it. A sample is an image and a
    target, as a pair or in a dict. A target is a class number, or numbers as ``Dataset`` has them. An image is a Pillow
    image, a uint8 array ``(H, W, C)``, a float array ``(C, H, W)``, or a tensor ``(C, H, W)``. All have one shape.
    uint8 images are normalised, float images are used as they are.

    Each batch reads its own samples in the main thread, so none has to fit into memory. Order and batches are the run's
    own. A random transform of the data set draws from generators of torch, NumPy and Python that begin at a seed of
    epoch and sample: the same on every backend, and after a resume.

    Args:
        train: Has a length, and ``train[number]`` is a sample.
        test: The same; None takes a share of each class from ``train``.
        size: Pixels of a side of Pillow images; ``image_size`` of the run takes its place. Without both, all images
            must have one size. It is not for targets that lie over pixels, such as masks, which it would not scale.
        fit: How a Pillow image becomes a square, as for ``ImageFolder``.
        grey: Whether Pillow images get one channel instead of three.
        share: The part of each class to test with, above 0 and below 1, where there is no ``test``.
        seed: Whole number >= 0, of that share and of random transforms.
        class_names: A name for each class; None takes those that the data set has.
        image: The key of the image in samples that are dicts, or its place in those that are tuples. None finds usual
            keys, and takes the first place.
        label: The same of the label; its usual place is the second one, 1.

    Raises:
        SpecError: An argument is outside of its range.

    Example:
        >>> import layered_lr as ll
        >>> import numpy as np
        >>> pairs = [(np.full((8, 8, 3), number, np.uint8), number % 2) for number in range(20)]
        >>> ll.load_dataset(ll.Samples(pairs, share=0.3)).facts[:4]
        (14, 6, 2, (3, 8, 8))
    """

    train: Any
    test: Any = None
    size: int | None = None
    fit: Fit = "crop"
    grey: bool = False
    share: float = 0.2
    seed: int = 0
    class_names: Sequence[str] | None = None
    image: str | int | None = None
    label: str | int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name in ("train", "test"):
            value = getattr(self, name)
            if name == "test" and value is None:
                continue
            if not is_map_style(value) and not isinstance(value, list | tuple):
                raise SpecError(f"Samples: {name} is a {type(value).__name__}.{explain_samples(value)}")
        if self.size is not None:
            whole_number("Samples: size", self.size, 1)
        whole_number("Samples: seed", self.seed, 0, is_count=False)
        share = read_number(self.share)
        if share is None or not 0 < share < 1:
            raise SpecError(f"Samples: share={shown(self.share)}: must be a number above 0 and below 1.")
        if self.fit not in FITS:
            raise SpecError(f"Samples: fit={shown(self.fit)}: must be {', '.join(map(repr, FITS))}.")
        check_yes_or_no("Samples", "grey", self.grey)
        for name in ("image", "label"):
            key = getattr(self, name)
            if isinstance(key, bool) or not isinstance(key, str | int | None):
                raise SpecError(f"Samples: {name}={shown(key)}: must be a key of the samples, or a place in them.")

    def load(self, size: int | None = None) -> Dataset:
        """Read what is needed to know of the samples: labels, the first image, mean and deviation of uint8 images.

        Args:
            size: Pixels of a side of Pillow images, in place of ``self.size``.

        Raises:
            DataError: A sample cannot be read, or is no image with a label.

        Example:
            >>> from PIL import Image
            >>> pairs = [(Image.new("RGB", (40, 30)), number % 2) for number in range(10)]
            >>> Samples(pairs).load(size=16).facts[:4]
            (8, 2, 2, (3, 16, 16))
        """
        if size is not None:
            whole_number("image_size", size, 1)
        decoder = Decoder(size or self.size, self.fit, self.grey)
        train = _Reader("train", self.train, decoder, self.image, self.label)
        labels = train.labels()
        numbers = np.arange(len(labels))
        if self.test is None:
            numbers, tests = self._divide(labels)
            test, test_labels = train, labels
        else:
            test = _Reader("test", self.test, decoder, self.image, self.label)
            test_labels = test.labels()
            tests = np.arange(len(test_labels))
        if any(find_facts(each).is_spatial for each in (labels, test_labels)):
            if self.size is not None:
                raise SpecError(
                    f"Samples: size={self.size} would scale the images, and not the targets over their pixels. Leave "
                    "it out, and scale images and targets together, in the data set."
                )
            for reader in (train, test):  # the targets are not turned as the EXIF data of their images say
                reader.decoder = decoder._replace(turns=False)
        names = self.class_names if self.class_names is not None else find_class_names(self.train, train.label_key())
        if self.class_names is None and names is not None and not _fit(names, labels, test_labels):
            names = None
        first = train.read(int(numbers[0]))[0]
        images = SampleImages(train.read, numbers, labels[numbers], first.shape, first.dtype, self.seed)
        return Dataset(
            type(self.train).__name__,
            images,  # type: ignore[arg-type]  # indexed like an array
            labels[numbers],
            SampleImages(test.read, tests, test_labels[tests], first.shape, first.dtype, self.seed),  # type: ignore[arg-type]
            test_labels[tests],
            class_names=names,  # type: ignore[arg-type]  # checked there
        )

    def _divide(self, targets: Array) -> tuple[Int64, Int64]:
        """Draw a share of each class for testing, one sample at least; at least one stays for training.

        Targets that are no class numbers are divided as if all were of one class.
        """
        has_classes = find_facts(targets).kind == "classes"
        labels = targets if has_classes else np.zeros(len(targets), np.int64)
        order = draw_split(self.seed, len(labels))
        in_test = np.zeros(len(labels), np.bool_)
        for number in np.unique(labels).tolist():
            own = order[labels[order] == number]
            if len(own) < 2:
                what = f"class {number}" if has_classes else "the data set"
                raise DataError(
                    f"{what} has one sample, and needs two or more: one to train with and one to test with. Or "
                    "give test samples: ll.Samples(train, test)."
                )
            in_test[own[: min(max(1, round(self.share * len(own))), len(own) - 1)]] = True
        return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _fit(names: Sequence[str], *targets: Array) -> bool:
    """Whether names that a data set has are those of its class numbers."""
    is_of_classes = find_facts(targets[0]).kind == find_facts(targets[1]).kind == "classes"
    return is_of_classes and len(names) > max(int(each.max()) for each in targets)


def is_map_style(value: object) -> bool:
    """Whether something has a length and samples by number, and is neither an array, a table nor a text."""
    kind = type(value)
    if isinstance(value, str | bytes | Mapping | list | tuple | type) or hasattr(kind, "__array__"):
        return False
    if is_called_loader(value) or any(base.__name__ == "IterableDataset" for base in kind.__mro__):
        return False
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__")


def explain_samples(value: object) -> str:
    """What to give instead of something that makes batches or samples in an order of its own."""
    if is_called_loader(value):
        size = getattr(value, "batch_size", None)
        return (
            " A DataLoader makes batches of its own, in an order that no resume could go on with: give the data sets, "
            f"data=(train_loader.dataset, test_loader.dataset), batch_size={size if isinstance(size, int) else '...'}."
        )
    return (
        " It must have a length and give samples by number (len(data), data[0]). Samples that come one after the other "
        "can be made a list; for a stream, use a loop of your own with ll.compile."
    )


class _Reader:
    """Reads samples of one data set.

    Args:
        name: For messages.
        source: The data set.
        decoder: What becomes of Pillow images.
        image: The key of images; None finds it.
        label: The key of labels; None finds it.

    Attributes:
        decoder: The same.
    """

    def __init__(
        self, name: str, source: Any, decoder: Decoder, image: str | int | None, label: str | int | None
    ) -> None:
        self._name, self._source, self.decoder = name, source, decoder
        self._image, self._label = image, label
        try:
            self.length = len(source)
        except Exception as error:  # whatever a foreign __len__ raises
            raise DataError(
                f"{name}: its length is not known ({describe_error(error)}).{explain_samples(source)}"
            ) from None
        if self.length == 0:
            raise DataError(f"{name} is empty: at least one sample is needed.")

    def read(self, index: int) -> tuple[Array, Array]:
        """Image and target of one sample.

        Raises:
            DataError: It cannot be read, or is no image with a label.
        """
        where = f"{self._name}[{index}]"
        image, label = self._parts(where, self._sample(index))
        target = read_target(where, label)
        return self._pixels(where, image), target

    def label_key(self) -> str | int:
        """The key of labels in a sample."""
        sample, where = self._sample(0), f"{self._name}[0]"
        if isinstance(sample, Mapping):
            return cast(str | int, self._key(where, sample, self._label, _LABELS))
        return self._place(where, sample, "label", 1) if isinstance(sample, list | tuple) else 1

    def labels(self) -> Array:
        """All targets: of the data set's own list where it has one, or else read with the samples."""
        found = find_labels(self._source, self.label_key())
        if found is None:
            found = stack_targets(self._name, [self.read(index)[1] for index in range(self.length)])
        return as_targets(f"labels of {self._name}", found)

    def _sample(self, index: int) -> Any:
        try:
            return self._source[index]
        except LayeredLRError:
            raise
        except Exception as error:  # whatever a foreign __getitem__ raises
            raise DataError(f"{self._name}[{index}] cannot be read ({describe_error(error)}).") from error

    def _parts(self, where: str, sample: Any) -> tuple[Any, Any]:
        if isinstance(sample, Mapping):
            image = self._key(where, sample, self._image, _IMAGES)
            return sample[image], sample[self._key(where, sample, self._label, _LABELS)]
        if isinstance(sample, list | tuple) and len(sample) >= 2:
            return sample[self._place(where, sample, "image", 0)], sample[self._place(where, sample, "label", 1)]
        length = f" of {len(sample)}" if isinstance(sample, list | tuple) else ""
        raise DataError(
            f"{where} is a {type(sample).__name__}{length}: a sample must be (image, label), or a dict of them."
        )

    def _place(self, where: str, sample: Sequence[Any], what: str, usual: int) -> int:
        """Where the image or the label is in a sample that is a tuple."""
        given = self._image if what == "image" else self._label
        if given is None:
            return usual
        if not isinstance(given, int) or not -len(sample) <= given < len(sample):
            raise DataError(
                f"{where} is a {type(sample).__name__} of {len(sample)}: ll.Samples(..., {what}={shown(given)}) is no "
                f"place in it. Give 0 to {len(sample) - 1}."
            )
        return given % len(sample)

    def _key(self, where: str, sample: Mapping[Any, Any], given: str | int | None, usual: Sequence[str]) -> Any:
        known = [given] if given is not None else usual
        found = next((key for key in known if key in sample), None)
        if found is None:
            what = "image" if usual is _IMAGES else "label"
            keys = ", ".join(map(repr, list(sample)[:10]))
            raise DataError(f"{where} has {keys}: say which is the {what}: ll.Samples(..., {what}=...).")
        return found

    def _pixels(self, where: str, image: Any) -> Array:
        if hasattr(image, "convert") and hasattr(image, "getexif"):  # Pillow's
            try:
                return self.decoder.convert(image)
            except (BadImage, OSError) as error:
                raise DataError(f"{where}: its image cannot be read ({error}).") from None
        is_tensor = not isinstance(image, np.ndarray) and hasattr(image, "detach")
        try:
            array = np.asarray(widened(image.detach().cpu() if is_tensor else image))
        except Exception as error:  # whatever a foreign __array__ raises
            raise DataError(
                f"{where}: its image cannot become a NumPy array ({describe_error(error)}): give numbers."
            ) from None
        if array.ndim == 2:
            array = array[:, :, None] if array.dtype == np.uint8 else array[None]
        elif is_tensor and array.dtype == np.uint8 and array.ndim == 3:
            if array.shape[2] in (1, 3) and array.shape[0] == array.shape[1] > 4:
                raise DataError(
                    f"{where} looks like HWC, but tensors are CHW: use x.permute(2, 0, 1). Received {array.dtype} of "
                    f"shape {array.shape}."
                )
            array = array.transpose(1, 2, 0)  # CHW, as torchvision has it
        if array.ndim != 3:
            raise DataError(
                f"{where}: its image is {array.dtype} of shape {array.shape}: must be a Pillow image, uint8 (H, W, C), "
                "float (C, H, W), or a tensor (C, H, W)."
            )
        checked: Array = as_images(where, array[None], axes=3, swap=swap_of(image))[0]
        return checked
