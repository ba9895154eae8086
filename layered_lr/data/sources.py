"""The ways to say which data: a name, an .npz file, arrays, or a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from layered_lr.data.cifar10 import CIFAR10_FACTS, load_cifar10
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.digits import DIGITS_FACTS, load_digits
from layered_lr.data.npz import KEYS, dataset_from_npz, require_keys
from layered_lr.errors import DataError, SpecError
from layered_lr.files import reason

DataSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | tuple[Any, Any, Any, Any] | Dataset"

_FACTS = {"digits": DIGITS_FACTS, "cifar10": CIFAR10_FACTS}


def load_dataset(data: DataSource, data_root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load the data that ``data`` names or holds.

    Args:
        data: ``"digits"`` (comes with scikit-learn), ``"cifar10"`` (downloaded once, augmented by default), the
            path of an ``.npz``, a mapping with x_train, y_train, x_test and y_test, those four as a tuple, or a
            ``Dataset``, which is returned as it is. ``Dataset`` says what arrays may be.
        data_root: Folder where CIFAR-10 is or will be; None for a cache folder of the user's.

    Returns:
        The data set, checked.

    Raises:
        SpecError: ``data`` is no known name, or no such thing at all.
        DataError: the data is missing, damaged or of the wrong shape.
    """
    _check_data_root(data_root)
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str) and not data.lower().endswith(".npz"):
        _check_name(data)
        return load_digits() if data == "digits" else load_cifar10(data_root)
    if isinstance(data, (str, os.PathLike)):
        return dataset_from_npz(data)
    if isinstance(data, Mapping):
        require_keys("data", data)
        return Dataset("arrays", **{key: _item(data, key) for key in KEYS})
    if isinstance(data, tuple):
        if len(data) != len(KEYS):
            raise DataError(f"data is a tuple of {len(data)}: it must be the four arrays ({', '.join(KEYS)}).")
        return Dataset("arrays", *data)
    raise SpecError(
        f"data must be {_known_names()}, the path of an .npz file, a mapping or 4-tuple of arrays "
        f"({', '.join(KEYS)}), or a Dataset. Received {type(data).__name__}."
    )


def dataset_facts(data: DataSource, data_root: str | os.PathLike[str] | None = None) -> DatasetFacts:
    """Sizes, number of classes and ``(C, H, W)`` of the data, to print a plan before anything is trained.

    The known names are answered without reading or downloading anything; all else is loaded, and raises
    what ``load_dataset`` raises.
    """
    _check_data_root(data_root)
    if isinstance(data, str) and data in _FACTS:
        return _FACTS[data]
    return load_dataset(data, data_root).facts


def _known_names() -> str:
    return " or ".join(repr(name) for name in _FACTS)


def _check_name(data: str) -> None:
    if data not in _FACTS:
        from layered_lr.spelling import nearest  # here, because it imports pydantic

        raise SpecError(
            f"data={data!r} is unknown.{nearest(data.lower(), _FACTS)} Give {_known_names()}, or the path of a "
            "file that ends in .npz."
        )


def _check_data_root(data_root: Any) -> None:
    if data_root is not None and not isinstance(data_root, (str, os.PathLike)):
        raise SpecError(f"data_root={data_root!r}: data_root must be the path of a folder, or None.")


def _item(data: Mapping[str, Any], key: str) -> Any:
    try:
        return data[key]
    except Exception as error:  # a mapping may read a file only now, as np.load's does
        raise DataError(f"data[{key!r}] cannot be read ({reason(error)}).") from None
