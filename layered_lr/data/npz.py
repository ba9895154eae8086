"""Data sets from an .npz file with the arrays x_train, y_train, x_test and y_test."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from layered_lr.arrays import Array
from layered_lr.data.dataset import Dataset
from layered_lr.errors import DataError
from layered_lr.files import check_complete, explain_read_errors
from layered_lr.spelling import did_you_mean

KEYS = ("x_train", "y_train", "x_test", "y_test")

_read_npy: Callable[..., Array] = np.lib.format.read_array  # NumPy 1.26 has no types for it


def dataset_from_npz(file: str | os.PathLike[str]) -> Dataset:
    """Read a data set from an .npz file; arrays with other names are ignored.

    Args:
        file: The path of the file; ``~`` is the home folder.

    Returns:
        The data set, named after the file, not augmented by default.

    Raises:
        DataError: The file is missing, damaged or not an .npz, lacks an array, or has one that ``Dataset`` refuses.
    """
    path = Path(os.path.expanduser(file))
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder: give the path of an .npz file in it (CIFAR-10: data='cifar10').")
    if os.path.lexists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise DataError(f"{path} is no plain file, and may never end: give the path of an .npz file.")
    if not os.path.isfile(path):  # Path.is_file would raise for a path that is too long or not permitted
        raise DataError(_describe_missing(path))
    with explain_read_errors(path, "an .npz file"), path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
        check_complete(opened, archive)
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        require_keys(str(path), members)
        x_train, y_train, x_test, y_test = (_read_array(archive, path, members[key]) for key in KEYS)
    return Dataset(path.stem, x_train, y_train, x_test, y_test)


def require_keys(where: str, keys: Collection[str]) -> None:
    """Raise a ``DataError`` if one of the four arrays is missing; it names the missing and the existing arrays."""
    lacking = [key for key in KEYS if key not in keys]
    if lacking:
        has = ", ".join(str(key) for key in list(keys)[:10]) or "nothing"
        raise DataError(f"{where} lacks {', '.join(lacking)}; it has {has}. It needs {', '.join(KEYS)}.")


def _read_array(archive: zipfile.ZipFile, path: Path, member: str) -> Array:
    """Read an array like ``np.load(allow_pickle=False)``, but to the end, where zipfile checks the checksum."""
    with archive.open(member) as stream:
        try:
            array = _read_npy(stream, allow_pickle=False)
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"{path}: {member} holds Python objects, which are never loaded: save an array of one numeric dtype."
            ) from None
        if stream.read(1):
            raise ValueError(f"{member} is longer than its header says")
    return array


def _describe_missing(path: Path) -> str:
    try:
        others = sorted(other.name for other in path.parent.glob("*.npz"))
    except (OSError, ValueError):
        others = []
    if others:
        listed = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        return f"{path} does not exist.{did_you_mean(path.name, others)} The .npz files of that folder: {listed}."
    if os.path.isdir(path.parent):
        return f"{path} does not exist, and there is no .npz file in its folder: check the path."
    return f"{path} does not exist, and its folder does not exist either: check the path."
