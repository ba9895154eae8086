"""CIFAR-10 and CIFAR-100: read from the Python archive or from the unpacked folder, or downloaded once.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (60,000 images of 32x32 in 10 or 100 classes).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layered_lr.data.cifar10_pickles import load_arrays
from layered_lr.data.dataset import Dataset
from layered_lr.errors import DataError
from layered_lr.files import as_path, describe_error, explain_read_errors

TIMEOUT_SECONDS = (5.0, 15.0)  # to connect, and between two parts of the answer


class CifarArchive(NamedTuple):
    """One of the two archives.

    Args:
        name: The data set's.
        title: Its name in messages.
        url: Where the archive is.
        archive: The name of its file.
        md5: Its digest.
        folder: The folder in it.
        train: The files of training images in that folder, with their digests.
        test: The files of test images.
        more: Other files that are read.
        label_key: The name of the labels in a file.
        class_names: Of the classes; empty where ``more`` has them.
    """

    name: str
    title: str
    url: str
    archive: str
    md5: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    more: Mapping[str, str]
    label_key: bytes
    class_names: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, str]:
        """All files that are read, with their digests."""
        return {**self.train, **self.test, **self.more}

    def load(self, data_root: str | os.PathLike[str] | None = None) -> Dataset:
        """Load the images; if they are not there, download them first.

        Args:
            data_root: A folder; None is the user's cache folder.

        Raises:
            DataError: A file is damaged, unreadable or missing, or the download failed.
        """
        root = self._root(data_root)
        folders = [folder for folder in (root, root / self.folder) if any(map(os.path.isfile, self._paths(folder)))]
        complete = [folder for folder in folders if all(map(os.path.isfile, self._paths(folder)))]
        if complete:
            return self._make_dataset(self._read_folder(complete[0]))
        if not os.path.isfile(root / self.archive):
            if folders:
                lacking = ", ".join(path.name for path in self._paths(folders[0]) if not os.path.isfile(path))
                raise DataError(
                    f"{folders[0]} lacks {lacking}: unpack {self.archive} again, or put the archive into {root}."
                )
            self._download(root)
        return self._make_dataset(self._read_archive(root / self.archive))

    def is_in(self, data_root: str | os.PathLike[str] | None = None) -> bool:
        """Whether ``load`` would find its files there, and download nothing."""
        root = self._root(data_root)
        return os.path.isfile(root / self.archive) or any(
            all(map(os.path.isfile, self._paths(folder))) for folder in (root, root / self.folder)
        )

    def _root(self, data_root: str | os.PathLike[str] | None) -> Path:
        if data_root is None:
            import pooch

            return Path(pooch.os_cache("layered_lr"))
        root = as_path("data_root", data_root)
        if root.name == self.archive:  # the archive itself was given
            root = root.parent
        if os.path.isfile(root):
            raise DataError(
                f"data_root {root} is a file: give the folder that contains {self.archive} or {self.folder}."
            )
        return root

    def _paths(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.members]

    def _read_folder(self, folder: Path) -> dict[str, bytes]:
        contents = {}
        for path in self._paths(folder):
            with explain_read_errors(path, f"a batch file of {self.archive}"):
                contents[path.name] = path.read_bytes()
            self._check_digest(path, _md5(contents[path.name]), self.members[path.name])
        return contents

    def _read_archive(self, path: Path) -> dict[str, bytes]:
        import pooch

        with explain_read_errors(path, f"{self.title}'s python-version archive"):
            self._check_digest(path, pooch.file_hash(str(path), alg="md5"), self.md5)
            with tarfile.open(path, "r:gz") as archive:
                contents = dict(self._batch_files(archive))
        for name, digest in self.members.items():
            self._check_digest(path / self.folder / name, _md5(contents.get(name, b"")), digest)
        return contents

    def _batch_files(self, archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
        """Yield the batch files in the order of the archive, because gzip cannot seek backwards."""
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stream = archive.extractfile(member) if folder == self.folder and name in self.members else None
            if stream is not None:
                yield name, stream.read()

    def _check_digest(self, path: Path, received: str, expected: str) -> None:
        if received != expected:
            raise DataError(
                f"{path} is damaged or another file: its md5 is {received}, not {expected}. Delete it, and take the "
                f"right one from {self.archive}, {self.url} (md5 {self.md5})."
            )

    def _make_dataset(self, contents: Mapping[str, bytes]) -> Dataset:
        images, labels = {}, {}
        for name in (*self.train, *self.test):
            batch = load_arrays(contents[name])
            images[name] = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 3072) -> NHWC
            labels[name] = np.asarray(batch[self.label_key], dtype=np.int64)
        names = self.class_names
        for name in self.more:
            names = tuple(each.decode() for each in load_arrays(contents[name])[b"fine_label_names"])
        return Dataset(
            self.name,
            np.concatenate([images[name] for name in self.train]),
            np.concatenate([labels[name] for name in self.train]),
            np.concatenate([images[name] for name in self.test]),
            np.concatenate([labels[name] for name in self.test]),
            augment=True,
            class_names=names,
        )

    def _download(self, root: Path) -> None:
        """Download the archive with a progress bar; pooch checks its digest before it gives the file its name."""
        import pooch

        try:
            pooch.retrieve(
                self.url,
                known_hash=f"md5:{self.md5}",
                fname=self.archive,
                path=root,
                downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS),
            )
        except Exception as error:  # errors of requests, urllib3 and the system: no network, no such page, disk full, …
            raise DataError(
                f"{self.title} is not in {root} and could not be downloaded. Put {self.archive} (from {self.url}, md5 "
                f"{self.md5}) into that folder, or give another one as data_root. The download failed with "
                f"{describe_error(error)}"
            ) from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
