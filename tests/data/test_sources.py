"""load_dataset and dataset_facts: the ways to say which data, the digits, and what importing costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Dataset, cifar10, dataset_facts, load_dataset
from layered_lr.data.targets import CLASSES
from layered_lr.errors import DataError, SpecError

X = np.random.default_rng(8).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8)
FOUR = (X[:6], np.arange(6), X[6:], np.arange(3))
MAPPING: dict[str, Any] = dict(zip(("x_train", "y_train", "x_test", "y_test"), FOUR, strict=True))
FIRST_LABELS = [0, 6, 3, 9, 0, 7, 2, 8, 2, 9]  # of the digits, as first drawn: their split never changes


def test_arrays_come_as_mapping_tuple_or_data_set() -> None:
    for data in (load_dataset(FOUR), load_dataset(MAPPING), load_dataset({**MAPPING, "more": 1})):
        assert data.name == "arrays" and data.augment is False
        for key, value in MAPPING.items():
            np.testing.assert_array_equal(getattr(data, key), value)
        assert load_dataset(data) is data


def test_an_open_npz_is_a_mapping(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **MAPPING)
    with np.load(tmp_path / "mine.npz") as opened:
        assert load_dataset(opened).facts == (6, 3, 6, (1, 4, 4), CLASSES)
    with pytest.raises(DataError, match=r"data\['x_train'\] cannot be read \(OSError: the file is closed"):
        load_dataset(Closed(MAPPING))


class Closed(dict[str, Any]):
    """A mapping that reads a file only when asked, and cannot any more."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("the file is closed")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            "digit",
            SpecError,
            r"data='digit' is unknown\. Did you mean 'digits'\? Give 'digits', 'cifar10' or 'cifar100', the path",
        ),
        ("CIFAR10", SpecError, "Did you mean 'cifar10'"),
        ("mnist", SpecError, r"data='mnist' is unknown\. Give 'digits', 'cifar10' or 'cifar100'"),
        ("some/folder", SpecError, "a file that ends in .npz"),
        ("", SpecError, "data='' is unknown"),
        (None, SpecError, "Received NoneType"),
        (7, SpecError, "Received int"),
        (X, SpecError, "a mapping or 4-tuple of arrays .x_train, y_train, x_test, y_test.*Received ndarray"),
        (FOUR[:3], DataError, "data is a tuple of 3: it must have the four arrays"),
        (((X, X), (X, X)), DataError, "data is a tuple of 2"),
        ({"x_train": X, "labels": X}, DataError, "data lacks y_train, x_test, y_test; it has x_train, labels"),
        ({}, DataError, "it has nothing"),
        ((X, *FOUR[1:]), DataError, "data 'arrays': x_train has 9 images, but y_train has 6 labels"),
    ],
)
def test_anything_else_is_refused(data: Any, error: type[Exception], message: str) -> None:
    for load in (load_dataset, dataset_facts):
        with pytest.raises(error, match=message) as caught:
            load(data)
        assert "\n" not in str(caught.value)


def test_a_wrong_data_root_is_refused() -> None:
    wrong: Any = 5
    for load in (load_dataset, dataset_facts):
        with pytest.raises(SpecError, match="data_root=5: must be the path of a folder, or None"):
            load("digits", wrong)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def test_the_digits_are_all_of_scikit_learns_each_once(digits: Dataset) -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    source = load_digits()
    x = np.concatenate([digits.x_train, digits.x_test])
    y = np.concatenate([digits.y_train, digits.y_test])
    assert x.shape == (1797, 32, 32, 3) and x.dtype == np.uint8
    assert (x == x[..., :1]).all()
    blocks = x[..., 0].reshape(1797, 8, 4, 8, 4)
    small = blocks[:, :, 0, :, 0]
    assert (blocks == small[:, :, None, :, None]).all()
    found = sorted((tuple(np.round(image.ravel() / 255 * 16)), label) for image, label in zip(small, y, strict=True))
    assert found == sorted((tuple(i.ravel()), label) for i, label in zip(source.images, source.target, strict=True))
    assert small.max() == 255 and set(np.unique(small)) == {round(v * 255 / 16) for v in range(17)}


def test_the_digits_are_split_alike_in_every_class_and_mixed(digits: Dataset) -> None:
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    assert np.abs(test - (train + test) / 5).max() <= 1
    for labels in (digits.y_train, digits.y_test):  # sorted by class, a hundred neighbours would be of one class
        assert len(np.unique(labels[:100])) == 10
    again = load_dataset("digits")
    np.testing.assert_array_equal(again.x_test, digits.x_test)
    assert digits.y_train[:10].tolist() == FIRST_LABELS
    assert digits.augment is False and digits.name == "digits"


def test_facts_of_the_digits_are_those_of_the_data(digits: Dataset) -> None:
    assert dataset_facts("digits") == digits.facts == (1437, 360, 10, (3, 32, 32), CLASSES)
    assert dataset_facts(FOUR) == (6, 3, 6, (1, 4, 4), CLASSES)
    assert dataset_facts(digits) == digits.facts


def test_facts_of_cifar10_are_those_of_the_data_where_it_is() -> None:
    import pooch  # type: ignore[import-untyped]

    cache = Path(pooch.os_cache("layered_lr"))
    if not (cache / cifar10.ARCHIVE).exists() and not (cache / cifar10.FOLDER).exists():
        pytest.skip(f"CIFAR-10 is not in {cache}")
    data = load_dataset("cifar10")
    assert dataset_facts("cifar10") == data.facts
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10


def test_asking_for_facts_and_loading_the_digits_imports_nothing_heavy() -> None:
    program = """
import sys
from layered_lr.data import dataset_facts, load_dataset
dataset_facts("digits"), dataset_facts("cifar10", "/nowhere")
load_dataset("digits")
heavy = {"sklearn", "scipy", "pooch", "tqdm", "requests", "torch", "oneflow", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"
