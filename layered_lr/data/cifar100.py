"""CIFAR-100 with its 100 fine classes, read as CIFAR-10 is; if it is not there, it is downloaded once."""

from __future__ import annotations

import os

from layered_lr.data.cifar_archive import CifarArchive
from layered_lr.data.dataset import Dataset, DatasetFacts

CIFAR100_FACTS = DatasetFacts(train_size=50_000, test_size=10_000, num_classes=100, image_shape=(3, 32, 32))

ARCHIVE = CifarArchive(
    name="cifar100",
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    more={"meta": "7973b15100ade9c7d40fb424638fde48"},
    label_key=b"fine_labels",
)


def load_cifar100(data_root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load CIFAR-100 from ``data_root``; if it is not there, download it to that folder first (169 MB).

    Args:
        data_root: A folder with the archive, with its files, or with the folder ``cifar-100-python``; None is the
            user's cache folder.

    Returns:
        uint8 NHWC, 50,000 training and 10,000 test images in the order of the files, augmented by default.

    Raises:
        DataError: A file is damaged, unreadable or missing, or the download failed. The message says which file to put
            where.
    """
    return ARCHIVE.load(data_root)


def has_cifar100(data_root: str | os.PathLike[str] | None = None) -> bool:
    """Whether ``load_cifar100`` would find its files there, and download nothing."""
    return ARCHIVE.is_in(data_root)
