"""CIFAR-10, read from its Python archive or from the unpacked folder; if neither is there, it is downloaded once."""

from __future__ import annotations

import os

from layered_lr.data.cifar_archive import CifarArchive
from layered_lr.data.dataset import Dataset, DatasetFacts

CIFAR10_FACTS = DatasetFacts(train_size=50_000, test_size=10_000, num_classes=10, image_shape=(3, 32, 32))

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3d95e74349a"
FOLDER = "cifar-10-batches-py"
MEMBERS_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(data_root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load CIFAR-10 from ``data_root``; if it is not there, download it to that folder first (170 MB).

    It looks for the six batch files in ``data_root`` itself, then for those in its folder ``cifar-10-batches-py``, then
    for the archive ``cifar-10-python.tar.gz``. It checks the digest of each file before it unpickles anything, and
    extracts nothing to disk.

    Args:
        data_root: A folder; None is the user's cache folder, ``pooch.os_cache("layered_lr")``.

    Returns:
        uint8 NHWC, 50,000 training and 10,000 test images in the order of the files, augmented by default.

    Raises:
        DataError: A file is damaged, unreadable or missing, or the download failed. The message says which file to put
            where.
    """
    return _archive().load(data_root)


def has_cifar10(data_root: str | os.PathLike[str] | None = None) -> bool:
    """Whether ``load_cifar10`` would find its files there, and download nothing."""
    return _archive().is_in(data_root)


def _archive() -> CifarArchive:
    *train, test = MEMBERS_MD5
    return CifarArchive(
        "cifar10",
        "CIFAR-10",
        URL,
        ARCHIVE,
        ARCHIVE_MD5,
        FOLDER,
        {name: MEMBERS_MD5[name] for name in train},
        {test: MEMBERS_MD5[test]},
        {},
        b"labels",
        CLASS_NAMES,
    )
