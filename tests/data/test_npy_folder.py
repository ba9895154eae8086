"""Arrays of a folder of .npy files: mapped, the same as arrays in memory, and refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Batches, Dataset, dataset_facts, load_dataset
from layered_lr.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)
Y = np.arange(12) % 3
ARRAYS = {"x_train": X[:9], "y_train": Y[:9], "x_test": X[9:], "y_test": Y[9:]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, array in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def test_batches_are_those_of_arrays_in_memory(folder: Path) -> None:
    data, expected = load_dataset(folder), Dataset("arrays", **ARRAYS)
    assert data.facts == dataset_facts(str(folder)) == expected.facts and data.digest() == expected.digest()
    assert np.shares_memory(data.x_train, data.x_train[:]) and not data.x_train.flags.owndata
    for ours, theirs in zip(
        Batches(data, 3, augment=True).epoch(0), Batches(expected, 3, augment=True).epoch(0), strict=True
    ):
        assert ours[0].tobytes() == theirs[0].tobytes()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "y_test.npy").unlink(), r"lacks y_test; it has x_train, y_train, x_test"),
        (lambda folder: (folder / "x_test.npy").write_bytes(b"no array"), r"x_test\.npy is not a file that numpy.save"),
        (lambda folder: np.save(folder / "y_train.npy", np.array(["a"])), r"y_train holds texts"),
        (lambda folder: np.save(folder / "x_train.npy", np.array([{}])), r"x_train\.npy is not"),
        (
            lambda folder: ((folder / "y_test.npy").unlink(), (folder / "y_test.npy").mkdir()),
            r"y_test\.npy is a folder",
        ),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, spoil: Any, words: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=words):
        load_dataset(folder)
