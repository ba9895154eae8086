"""Data sets larger than memory: a folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy, which are mapped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from layered_lr.arrays import Array
from layered_lr.data.dataset import Dataset
from layered_lr.data.npz import KEYS, require_keys
from layered_lr.errors import DataError
from layered_lr.files import describe_kind, explain_read_errors


def is_npy_folder(path: Path) -> bool:
    """Whether a folder has one of the four files."""
    return any(os.path.lexists(path / f"{key}.npy") for key in KEYS)


def dataset_from_npy(path: Path) -> Dataset:
    """Map the four arrays of a folder into memory: each batch reads its own images from the disk.

    Images of uint8 and float32 stay on the disk; those of other dtypes are converted, and then are in memory.

    Args:
        path: The folder.

    Raises:
        DataError: A file is missing, damaged or no plain file, or ``Dataset`` refuses an array.
    """
    require_keys(str(path), [key for key in KEYS if os.path.lexists(path / f"{key}.npy")])
    x_train, y_train, x_test, y_test = (_map(path / f"{key}.npy") for key in KEYS)
    return Dataset(path.name, x_train, y_train, x_test, y_test)


def _map(file: Path) -> Array:
    with explain_read_errors(file, "a file that numpy.save has written"):
        if kind := describe_kind(file.stat().st_mode):
            raise DataError(f"{file} is {kind}: must be a plain file, as numpy.save writes it.")
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):  # an .npz by another name
            raise DataError(f"{file} holds several arrays: save one with numpy.save.")
    return array
