"""CIFAR-10, read from its Python archive or from the unpacked folder; if neither is there, it is downloaded once.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (60,000 images of 32x32 in 10 classes).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from layered_lr.data.cifar10_pickles import load_arrays
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.errors import DataError
from layered_lr.files import as_path, describe_error, explain_read_errors

CIFAR10_FACTS = DatasetFacts(train_size=50_000, test_size=10_000, num_classes=10, image_shape=(3, 32, 32))

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
TIMEOUT_SECONDS = (5.0, 15.0)  # to connect, and between two parts of the answer
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
    root = _root(data_root)
    folders = [folder for folder in (root, root / FOLDER) if any(map(os.path.isfile, _members(folder)))]
    complete = [folder for folder in folders if all(map(os.path.isfile, _members(folder)))]
    if complete:
        return _make_dataset(_read_folder(complete[0]))
    if not os.path.isfile(root / ARCHIVE):
        if folders:
            lacking = ", ".join(path.name for path in _members(folders[0]) if not os.path.isfile(path))
            raise DataError(f"{folders[0]} lacks {lacking}: unpack {ARCHIVE} again, or put the archive into {root}.")
        _download(root)
    return _make_dataset(_read_archive(root / ARCHIVE))


def has_cifar10(data_root: str | os.PathLike[str] | None = None) -> bool:
    """Whether ``load_cifar10`` would find its files there, and download nothing."""
    root = _root(data_root)
    return os.path.isfile(root / ARCHIVE) or any(
        all(map(os.path.isfile, _members(folder))) for folder in (root, root / FOLDER)
    )


def _root(data_root: str | os.PathLike[str] | None) -> Path:
    if data_root is None:
        import pooch

        return Path(pooch.os_cache("layered_lr"))
    root = as_path("data_root", data_root)
    if root.name == ARCHIVE:  # the archive itself was given
        root = root.parent
    if os.path.isfile(root):
        raise DataError(f"data_root {root} is a file: give the folder that contains {ARCHIVE} or {FOLDER}.")
    return root


def _members(folder: Path) -> list[Path]:
    return [folder / name for name in MEMBERS_MD5]


def _read_folder(folder: Path) -> dict[str, bytes]:
    contents = {}
    for path in _members(folder):
        with explain_read_errors(path, f"a batch file of {ARCHIVE}"):
            contents[path.name] = path.read_bytes()
        _check_digest(path, _md5(contents[path.name]), MEMBERS_MD5[path.name])
    return contents


def _read_archive(path: Path) -> dict[str, bytes]:
    import pooch

    with explain_read_errors(path, "CIFAR-10's python-version archive"):
        _check_digest(path, pooch.file_hash(str(path), alg="md5"), ARCHIVE_MD5)
        with tarfile.open(path, "r:gz") as archive:
            contents = dict(_batch_files(archive))
    for name, digest in MEMBERS_MD5.items():
        _check_digest(path / FOLDER / name, _md5(contents.get(name, b"")), digest)
    return contents


def _batch_files(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield the batch files in the order of the archive, because gzip cannot seek backwards."""
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        stream = archive.extractfile(member) if folder == FOLDER and name in MEMBERS_MD5 else None
        if stream is not None:
            yield name, stream.read()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _check_digest(path: Path, received: str, expected: str) -> None:
    if received != expected:
        raise DataError(
            f"{path} is damaged or another file: its md5 is {received}, not {expected}. Delete it, and take the right "
            f"one from {ARCHIVE}, {URL} (md5 {ARCHIVE_MD5})."
        )


def _make_dataset(contents: Mapping[str, bytes]) -> Dataset:
    images, labels = {}, {}
    for name in MEMBERS_MD5:
        batch = load_arrays(contents[name])
        images[name] = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 3072) -> NHWC
        labels[name] = np.asarray(batch[b"labels"], dtype=np.int64)
    *train, test = MEMBERS_MD5
    return Dataset(
        "cifar10",
        np.concatenate([images[name] for name in train]),
        np.concatenate([labels[name] for name in train]),
        images[test],
        labels[test],
        augment=True,
    )


def _download(root: Path) -> None:
    """Download the archive with a progress bar; pooch checks its digest before it gives the file its name."""
    import pooch

    try:
        pooch.retrieve(
            URL,
            known_hash=f"md5:{ARCHIVE_MD5}",
            fname=ARCHIVE,
            path=root,
            downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS),
        )
    except Exception as error:  # errors of requests, urllib3 and the system: no network, no such page, disk full, …
        raise DataError(
            f"CIFAR-10 is not in {root} and could not be downloaded. Put {ARCHIVE} (from {URL}, md5 {ARCHIVE_MD5}) "
            f"into that folder, or give another one as data_root. The download failed with {describe_error(error)}"
        ) from None
