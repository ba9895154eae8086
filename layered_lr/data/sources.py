"""The ways to say which data to train on: a name, an .npz file, arrays, or a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from layered_lr.arrays import Array, Arrays
from layered_lr.data.cifar10 import CIFAR10_FACTS, has_cifar10, load_cifar10
from layered_lr.data.cifar100 import CIFAR100_FACTS, has_cifar100, load_cifar100
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.digits import DIGITS_FACTS, load_digits
from layered_lr.data.image_folder import ImageFolder
from layered_lr.data.loaders import is_called_loader, is_loader, open_loader
from layered_lr.data.npy_folder import dataset_from_npy, is_npy_folder
from layered_lr.data.npz import KEYS, dataset_from_npz, require_keys
from layered_lr.data.samples import Samples, explain_samples, is_map_style
from layered_lr.errors import DataError, SpecError
from layered_lr.files import describe_error
from layered_lr.guesses import is_foreign
from layered_lr.printed import shown
from layered_lr.spelling import did_you_mean


class SupportsSamples(Protocol):
    """A data set of torch, of Hugging Face, or of one's own: samples by their numbers."""

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, index: Any, /) -> Any:
        """One sample: an image and its label."""


DataSource: TypeAlias = (
    str
    | os.PathLike[str]
    | Arrays
    | tuple[Array, Array, Array, Array]
    | Dataset
    | ImageFolder
    | Samples
    | SupportsSamples
    | tuple[SupportsSamples, SupportsSamples]
)
"""What says which data to train on; ``load_dataset`` has the list in words."""

_FACTS = {"digits": DIGITS_FACTS, "cifar10": CIFAR10_FACTS, "cifar100": CIFAR100_FACTS}
_LOADERS = {"cifar10": load_cifar10, "cifar100": load_cifar100}
_FINDERS = {"cifar10": has_cifar10, "cifar100": has_cifar100}
FOLDER: Final = "folder:"
"""Before the path of a folder of images, on the command line and in recipes."""


def needs_download(data: object, data_root: str | os.PathLike[str] | None) -> bool:
    """Whether ``load_dataset`` would download a data set to a folder."""
    is_there = _FINDERS.get(data) if isinstance(data, str) else None
    return is_there is not None and not is_there(data_root)


def load_dataset(
    data: DataSource, data_root: str | os.PathLike[str] | None = None, image_size: int | None = None
) -> Dataset:
    """Load a data set by its name, from a file, from a folder or from arrays.

    Args:
        data: ``"digits"`` (installed with scikit-learn), ``"cifar10"`` or ``"cifar100"`` (downloaded once, augmented by
            default), the path of an ``.npz`` file, the path of a folder of images (also as ``"folder:PATH"``) or of a
            folder with the files x_train.npy, y_train.npy, x_test.npy and y_test.npy, an ``ImageFolder`` or a mapping
            with its arguments, a data set of torch or Hugging Face or two of them (``Samples``), a ``DataLoader`` of
            torch or two of them whose batches are as a run's, a mapping with the
            arrays x_train, y_train, x_test and y_test, a tuple of these four, or a ``Dataset``. The docstring of
            ``Dataset`` says which arrays are allowed.
        data_root: The folder of CIFAR-10 or CIFAR-100, or where to download it to; None is the user's cache folder.
        image_size: Pixels of a side of a folder's images, and of the Pillow images of samples, in place of their size.

    Returns:
        The data set, checked. A ``Dataset`` is returned unchanged.

    Raises:
        SpecError: ``data`` is not a known name, or of another type.
        DataError: The data is missing, damaged or of the wrong shape.

    Example:
        >>> import layered_lr as ll
        >>> data = ll.load_dataset("digits")
        >>> data.x_train.shape, data.num_classes
        ((1437, 32, 32, 3), 10)
    """
    _check_data_root(data_root)
    if isinstance(data, Dataset):
        return data
    if (arrays := _as_npy_folder(data)) is not None:
        return dataset_from_npy(arrays)
    if (folder := _as_folder(data)) is not None:
        return folder.load(image_size)
    if (samples := find_samples(data)) is not None:
        return samples.load(image_size)
    if isinstance(data, str) and not data.lower().endswith(".npz"):
        _check_name(data)
        return load_digits() if data == "digits" else _LOADERS[data](data_root)
    if isinstance(data, (str, os.PathLike)):
        return dataset_from_npz(data)
    if isinstance(data, Mapping):
        require_keys("data", data)
        x_train, y_train, x_test, y_test = (_item(data, key) for key in KEYS)
        return Dataset("arrays", x_train, y_train, x_test, y_test)
    if isinstance(data, tuple):
        if len(data) != len(KEYS):
            raise DataError(
                f"data is a tuple of {len(data)}: it must have the four arrays ({', '.join(KEYS)})."
                f"{_explain_source(data)}"
            )
        return Dataset("arrays", *data)
    raise SpecError(
        f"data must be {_known_names()}, the path of an .npz file or of a folder of images, a mapping or 4-tuple of "
        f"arrays ({', '.join(KEYS)}), an ImageFolder, Samples or a Dataset. "
        f"Received {type(data).__name__}.{_explain_source(data)}"
    )


def dataset_facts(
    data: DataSource, data_root: str | os.PathLike[str] | None = None, image_size: int | None = None
) -> DatasetFacts:
    """Return the sizes, the number of classes and ``(C, H, W)`` of the data, so that a plan can be printed.

    For the known names, nothing is read or downloaded; the images of a folder are listed. All other data is loaded with
    ``load_dataset``.

    Raises:
        SpecError: ``data`` is not a known name, or of another type.
        DataError: The data is missing, damaged or of the wrong shape.
    """
    _check_data_root(data_root)
    if isinstance(data, str) and data in _FACTS:
        return _FACTS[data]
    if (folder := find_folder(data)) is not None:
        return folder.facts(image_size)
    return load_dataset(data, data_root, image_size).facts


def find_folder(data: object) -> ImageFolder | None:
    """The folder of images that ``data`` stands for; None where it is something else."""
    return _as_folder(data) if _as_npy_folder(data) is None else None


def _as_npy_folder(data: object) -> Path | None:
    """The folder of ``.npy`` files that ``data`` names; None where it is something else."""
    if not isinstance(data, (str, os.PathLike)) or (isinstance(data, str) and data in _FACTS):
        return None
    text = os.path.expanduser(data)
    return Path(text) if isinstance(text, str) and os.path.isdir(text) and is_npy_folder(Path(text)) else None


def _as_folder(data: object) -> ImageFolder | None:
    """The folder of images that ``data`` stands for; None where it is something else."""
    if isinstance(data, ImageFolder):
        return data
    if isinstance(data, Mapping) and "folder" in data:
        return ImageFolder.from_dict(data)
    if isinstance(data, str) and data.startswith(FOLDER):
        return ImageFolder(data.removeprefix(FOLDER))
    if isinstance(data, os.PathLike) or (isinstance(data, str) and data not in _FACTS):
        path = os.path.expanduser(data)
        return ImageFolder(data) if os.path.isdir(path) and not str(path).lower().endswith(".npz") else None
    return None


_OWN_LOOP = (
    " run makes the batches itself. For batches of a {name} write the loop: optimizer, scheduler = ll.compile(spec, "
    "model)."
)
_TEST_PARTS = ("validation", "val", "valid", "test", "testing", "dev")


def find_samples(data: object) -> Samples | None:
    """The samples that ``data`` stands for: a data set of torch or Hugging Face, or two of them; None otherwise."""
    if isinstance(data, Samples):
        return data
    if is_loader(data):
        return Samples(open_loader("train", data))
    if isinstance(data, tuple) and len(data) == 2 and any(map(is_loader, data)):
        data = tuple(
            open_loader(name, part) if is_loader(part) else part
            for name, part in zip(("train", "test"), data, strict=True)
        )
    if is_map_style(data):
        return Samples(data)
    if isinstance(data, tuple) and len(data) == 2 and all(map(is_map_style, data)):
        return Samples(*data)
    if isinstance(data, Mapping) and "train" in data and is_map_style(data["train"]):
        test = next((data[name] for name in _TEST_PARTS if name in data), None)
        return Samples(data["train"], test)
    return None


def _explain_source(data: object) -> str:
    """What to do with data of another kind: a DataLoader, a list of arrays, a training set alone."""
    for part in data if isinstance(data, tuple | list) else (data,):
        if is_called_loader(part):
            return explain_samples(part)
        if is_foreign(part) and not hasattr(part, "__array__"):
            return _OWN_LOOP.format(name=(part if isinstance(part, type) else type(part)).__name__)
    if isinstance(data, list) and len(data) == len(KEYS):
        return " Give the four as a tuple."
    if isinstance(data, tuple) and len(data) == 2:
        return " The test images and their labels are missing: they are needed to evaluate."
    if isinstance(data, Iterator):
        return _OWN_LOOP.format(name=type(data).__name__)
    return ""


def _known_names() -> str:
    *names, last = map(repr, _FACTS)
    return f"{', '.join(names)} or {last}"


def _check_name(data: str) -> None:
    if data not in _FACTS:
        raise SpecError(
            f"data={data!r} is unknown.{did_you_mean(data.lower(), _FACTS)} Give {_known_names()}, the path of a file "
            "that ends in .npz, or the path of a folder of images that is there."
        )


def _check_data_root(data_root: object) -> None:
    if data_root is not None and not isinstance(data_root, (str, os.PathLike)):
        raise SpecError(f"data_root={shown(data_root)}: must be the path of a folder, or None.")


def _item(data: Arrays, key: str) -> Array:
    try:
        return data[key]
    except Exception as error:  # a mapping may read its file only now, such as the one from np.load
        raise DataError(f"data[{key!r}] cannot be read ({describe_error(error)}): check where it comes from.") from None
