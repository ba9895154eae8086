"""CIFAR-100 from a small folder of the same make, and its digests against torchvision's."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import cifar100, load_dataset
from layered_lr.errors import DataError

NAMES = [f"class {number}" for number in range(100)]
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 3072), dtype=np.uint8)
LABELS = [3, 99, 0, 5, 7, 7, 1, 42]


def contents() -> dict[str, bytes]:
    """Pickles with keys of bytes, as those of Python 2 are read."""

    def part(where: slice) -> dict[bytes, Any]:
        return {b"data": PIXELS[where], b"fine_labels": LABELS[where], b"coarse_labels": [0] * len(LABELS[where])}

    tables: dict[str, Any] = {"train": part(slice(6)), "test": part(slice(6, 8))}
    tables["meta"] = {b"fine_label_names": [name.encode() for name in NAMES]}
    return {name: pickle.dumps(table, protocol=4) for name, table in tables.items()}


def test_fine_classes_and_their_names_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {}
    for name, content in contents().items():
        (tmp_path / "cifar-100-python").mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / name).write_bytes(content)
        digests[name] = {name: hashlib.md5(content).hexdigest()}
    small = cifar100.ARCHIVE._replace(train=digests["train"], test=digests["test"], more=digests["meta"])
    monkeypatch.setattr(cifar100, "ARCHIVE", small)
    data = load_dataset("cifar100", tmp_path)
    assert data.facts[:4] == (6, 2, 100, (3, 32, 32)) and data.augment and data.class_names == tuple(NAMES)
    assert data.y_train.tolist() == LABELS[:6] and data.y_test.tolist() == LABELS[6:]
    assert data.x_train[1, 5, 9].tolist() == [PIXELS[1][5 * 32 + 9 + 1024 * channel] for channel in range(3)]
    (tmp_path / "cifar-100-python" / "meta").write_bytes(b"other")
    with pytest.raises(DataError, match=r"meta is damaged or another file"):
        load_dataset("cifar100", tmp_path)


def test_the_digests_are_those_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    theirs, ours = datasets.CIFAR100, cifar100.ARCHIVE
    assert (theirs.url, theirs.tgz_md5, theirs.base_folder) == (ours.url, ours.md5, ours.folder)
    assert [next(iter(ours.train.items())), next(iter(ours.test.items()))] == [
        tuple(theirs.train_list[0]),
        tuple(theirs.test_list[0]),
    ]
    assert theirs.meta["md5"] == ours.more["meta"]
