"""A data set from an .npz file: x_train, y_train, x_test, y_test."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.data.dataset import Dataset
from layered_lr.errors import DataError
from layered_lr.files import reading

KEYS = ("x_train", "y_train", "x_test", "y_test")

_read_npy: Callable[..., NDArray[Any]] = np.lib.format.read_array  # NumPy 1.26 gives it no types


def dataset_from_npz(file: str | os.PathLike[str]) -> Dataset:
    """Read a data set from an .npz; arrays other than the four are not looked at.

    Args:
        file: Its path; ``~`` is the home folder.

    Returns:
        The data set, named after the file, not augmented by default.

    Raises:
        DataError: the file is missing, damaged or no .npz, lacks an array or has one that ``Dataset`` refuses.
    """
    path = Path(os.path.expanduser(file))
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder: give the path of an .npz file in it (CIFAR-10: data='cifar10').")
    if not os.path.isfile(path):  # unlike Path.is_file, it answers for a path too long or not permitted
        raise DataError(_missing(path))
    with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        require_keys(str(path), members)
        arrays: dict[str, Any] = {key: _read_array(archive, path, members[key]) for key in KEYS}
    return Dataset(path.stem, **arrays)


def require_keys(where: str, keys: Mapping[str, Any]) -> None:
    """Raise ``DataError`` that names both the arrays that are lacking and those that are there."""
    lacking = [key for key in KEYS if key not in keys]
    if lacking:
        has = ", ".join(str(key) for key in list(keys)[:10]) or "nothing"
        raise DataError(f"{where} lacks {', '.join(lacking)}; it has {has}. It needs {', '.join(KEYS)}.")


def _read_array(archive: zipfile.ZipFile, path: Path, member: str) -> NDArray[Any]:
    """As ``np.load(allow_pickle=False)``, but read to the end: only there does zipfile compare the checksum."""
    with archive.open(member) as stream:
        try:
            array = _read_npy(stream, allow_pickle=False)
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"{path}: {member} holds Python objects, which are not read: save an array of one numeric dtype."
            ) from None
        if stream.read(1):
            raise ValueError(f"{member} is longer than its header says")
    return array


def _missing(path: Path) -> str:
    from layered_lr.spelling import nearest  # here, because it imports pydantic

    try:
        others = sorted(other.name for other in path.parent.glob("*.npz"))
    except (OSError, ValueError):
        others = []
    if others:
        listed = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        return f"{path} does not exist.{nearest(path.name, others)} The .npz files of that folder: {listed}."
    if os.path.isdir(path.parent):
        return f"{path} does not exist, and there is no .npz file in its folder: check the path."
    return f"{path} does not exist, nor does its folder: check the path."
