"""A folder of images as data: torchvision's layout, one folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from layered_lr.console import say
from layered_lr.counts import whole_number
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.decoding import FITS, BadImage, Decoder, Fit
from layered_lr.data.folder_images import FolderImages, count_workers
from layered_lr.data.folder_listing import Files, Listing, list_folder
from layered_lr.errors import DataError, SpecError
from layered_lr.files import as_path
from layered_lr.guesses import unknown_name
from layered_lr.printed import shown
from layered_lr.scalars import read_number
from layered_lr.yes_or_no import check_yes_or_no

_LARGEST_SIDE = 1 << 14
_MOST_NAMED = 10  # broken images in one message


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images, ``folder/CLASS/*.jpg``, or ``folder/train/CLASS/*.jpg`` with a folder ``val`` or ``test``.

    It is what ``data=`` takes. Pillow decodes the images in threads, so each backend trains on the same pixels: with
    ``fit="crop"`` those of torchvision's ``ImageFolder`` with ``Resize(size)`` and ``CenterCrop(size)``. An image is
    turned as its EXIF data say, and 16 bits are scaled to 8. Classes are numbered in the order of their sorted names.

    Before a run trains, all images are decoded once (of more than 20,000, those 20,000 whose mean and deviation are
    measured). If their pixels have at most ``memory_bytes``, they stay in memory. Of a larger folder, threads decode
    the images of the next two batches.

    Args:
        folder: The path. What is in hidden files, and in files with other endings than ``.jpg``, ``.jpeg``, ``.png``,
            ``.ppm``, ``.bmp``, ``.pgm``, ``.tif``, ``.tiff`` and ``.webp``, is not read.
        size: Pixels of a side; None takes ``image_size`` of the run, or leaves images that are all of one size.
        fit: How an image becomes a square: ``"crop"`` scales the shorter side and cuts the middle out, ``"stretch"``
            scales both sides, ``"pad"`` scales the longer side and fills up with black.
        grey: Whether images have one channel instead of three.
        share: The part of each class to test with, above 0 and below 1, where the folder has no part for it.
        seed: Whole number >= 0; which images these are.
        test_folder: The folder inside to test with; None takes the first one there of ``val``, ``valid``,
            ``validation``, ``test``, ``testing`` and ``dev``, in small letters or capitals.
        broken: What to do about files that are no images, or are damaged: ``"raise"`` names all of them, ``"skip"``
            names them and leaves them out.
        augment: Whether batches crop and flip at random if the run does not say.
        workers: Threads that decode; None is one for each processor, at most 16.
        memory_bytes: How many bytes of pixels, of both parts together, may stay in memory.

    Raises:
        SpecError: An argument is outside of its range.

    Example:
        >>> import layered_lr as ll
        >>> ll.ImageFolder("pets", size=224).to_dict()
        {'folder': 'pets', 'size': 224}
    """

    folder: str | os.PathLike[str]
    size: int | None = None
    fit: Fit = "crop"
    grey: bool = False
    share: float = 0.2
    seed: int = 0
    test_folder: str | None = None
    broken: Literal["raise", "skip"] = "raise"
    augment: bool = False
    workers: int | None = None
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Check the arguments."""
        as_path("ImageFolder: folder", self.folder)
        object.__setattr__(self, "folder", str(Path(self.folder)))
        for name, least in (("size", 1), ("workers", 1), ("seed", 0), ("memory_bytes", 0)):
            value = getattr(self, name)
            if value is not None or name in ("seed", "memory_bytes"):
                checked = whole_number(f"ImageFolder: {name}", value, least, is_count=name != "seed")
                object.__setattr__(self, name, checked)
        if self.size is not None and self.size > _LARGEST_SIDE:
            raise SpecError(f"ImageFolder: size={self.size}: must be 1 to {_LARGEST_SIDE} pixels.")
        share = read_number(self.share)
        if share is None or not 0 < share < 1:
            raise SpecError(f"ImageFolder: share={shown(self.share)}: must be a number above 0 and below 1.")
        object.__setattr__(self, "share", share)
        _check_word("fit", self.fit, FITS)
        _check_word("broken", self.broken, ("raise", "skip"))
        for name in ("grey", "augment"):
            check_yes_or_no("ImageFolder", name, getattr(self, name))
        inside = self.test_folder
        if inside is not None and (not isinstance(inside, str) or not inside or "/" in inside or inside == "train"):
            raise SpecError(
                f"ImageFolder: test_folder={shown(inside)}: must be the name of a folder beside 'train', such as "
                "'test'."
            )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> ImageFolder:
        """Make one from a table, such as a recipe's ``[run.data]``.

        Raises:
            SpecError: An unknown key, or no ``folder``.

        Example:
            >>> ImageFolder.from_dict({"folder": "pets", "size": 64}).size
            64
        """
        known = [each.name for each in fields(cls)]
        for name in table:
            if name not in known:
                raise SpecError(f"ImageFolder has no {shown(name)}.{unknown_name('ImageFolder', str(name), known)}")
        if "folder" not in table:
            raise SpecError("ImageFolder: folder is missing: give the path of the folder of images.")
        return cls(**table)

    def to_dict(self) -> dict[str, Any]:
        """The path, and what is not as by default, as a plain table."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def load(self, size: int | None = None) -> Dataset:
        """List, check and measure the images.

        Args:
            size: Pixels of a side where ``self.size`` is None.

        Raises:
            DataError: The folder or one of its classes is missing or empty, images are broken, or their sizes differ
                and no size is given.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> root = Path(tempfile.mkdtemp())
            >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
            ...     (root / name).parent.mkdir(exist_ok=True)
            ...     Image.new("RGB", (40, 30)).save(root / name)
            >>> data = ImageFolder(root).load(size=16)
            >>> data.class_names, data.x_train.shape
            (('cat', 'dog'), (2, 16, 16, 3))
        """
        listing, decoder = self._list(), self._decoder(size)
        height, width = (decoder.size, decoder.size) if decoder.size else self._find_size(listing, decoder)
        rooms = self._rooms(listing, decoder.channels * height * width)
        parts = [
            FolderImages(files, decoder, height, width, self._workers, room)
            for files, room in zip(listing[1:], rooms, strict=True)
        ]
        train, test = self._without_broken(parts)
        self._check_classes(listing, train.files)
        return Dataset(
            self._root.name or str(self._root),
            train,  # type: ignore[arg-type]  # indexed like an array
            train.files.labels,
            test,  # type: ignore[arg-type]
            test.files.labels,
            augment=self.augment,
            class_names=listing.classes,
        )

    def facts(self, size: int | None = None) -> DatasetFacts:
        """Sizes and classes; no image is decoded, unless broken ones are to be left out.

        Args:
            size: As for ``load``.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> root = Path(tempfile.mkdtemp())
            >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
            ...     (root / name).parent.mkdir(exist_ok=True)
            ...     Image.new("RGB", (40, 30)).save(root / name)
            >>> ImageFolder(root).facts()[:4]
            (2, 2, 2, (3, 30, 40))
        """
        if self.broken == "skip":
            return self.load(size).facts
        listing, decoder = self._list(), self._decoder(size)
        height, width = (decoder.size, decoder.size) if decoder.size else self._find_size(listing, decoder)
        shape = (decoder.channels, height, width)
        return DatasetFacts(len(listing.train.names), len(listing.test.names), len(listing.classes), shape)

    @property
    def _root(self) -> Path:
        return as_path("ImageFolder: folder", self.folder).absolute()  # images are read while the run goes on

    @property
    def _workers(self) -> int:
        return self.workers or count_workers()

    def _list(self) -> Listing:
        return list_folder(self._root, self.share, self.seed, self.test_folder)

    def _decoder(self, size: int | None) -> Decoder:
        own = self.size if size is None else replace(self, size=size).size  # checked
        return Decoder(own, self.fit, self.grey)

    def _rooms(self, listing: Listing, image_bytes: int) -> tuple[int, int]:
        """How many bytes each part may keep: all or nothing of the training part, then of the test part."""
        train = len(listing.train.names) * image_bytes
        return self.memory_bytes, self.memory_bytes - train if train <= self.memory_bytes else 0

    def _find_size(self, listing: Listing, decoder: Decoder) -> tuple[int, int]:
        """Height and width that all images have.

        Raises:
            DataError: They have several sizes.
        """

        def find(path: Path) -> tuple[int, int] | None:
            try:
                return decoder.find_size(path)
            except BadImage:  # named when it is to be decoded
                return None

        paths = [part.root / name for part in listing[1:] for name in part.names]
        with ThreadPoolExecutor(self._workers) as pool:
            sizes = Counter(size for size in pool.map(find, paths) if size is not None)
        if not sizes:
            raise DataError(f"{self._root}: none of its {len(paths)} files is an image that can be read.")
        if len(sizes) > 1:
            (least, most) = min(sizes), max(sizes)
            raise DataError(
                f"{self._root}: the images have {len(sizes)} sizes, such as {least[1]}x{least[0]} and "
                f"{most[1]}x{most[0]}: give the pixels of a side that all are to have: size=224 "
                "(image_size=224, --image-size 224)."
            )
        return next(iter(sizes))

    def _without_broken(self, parts: Sequence[FolderImages]) -> list[FolderImages]:
        """Find broken images: raise, or leave them out."""
        broken = [part.find_broken(of_all=self.broken == "skip") for part in parts]
        named = [
            f"{part.files.path(index).relative_to(self._root)} ({why})"
            for part, found in zip(parts, broken, strict=True)
            for index, why in found.items()
        ]
        if not named:
            return list(parts)
        more = f", and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        count = sum(map(len, parts))
        what = f"{self._root}: {len(named)} of {count} files cannot be used: {', '.join(named[:_MOST_NAMED])}{more}"
        if self.broken == "raise":
            raise DataError(f"{what}. Repair or remove them, or leave them out with broken='skip'.")
        if any(len(found) == len(part) for part, found in zip(parts, broken, strict=True)):
            raise DataError(f"{what}. None is left to train with, or to test with: repair them.")
        say(f"{what}. They are left out.")
        return [part.without(found) if found else part for part, found in zip(parts, broken, strict=True)]

    def _check_classes(self, listing: Listing, train: Files) -> None:
        gone = sorted(set(range(len(listing.classes))) - set(train.labels.tolist()))
        if gone:
            raise DataError(
                f"{train.root}: no training image of class {listing.classes[gone[0]]!r} can be read: repair them, or "
                "remove the class."
            )


def is_same_folder(one: ImageFolder, other: ImageFolder) -> bool:
    """Whether both read the same folder, whatever their settings are."""
    return os.path.realpath(as_path("folder", one.folder)) == os.path.realpath(as_path("folder", other.folder))


def count_shared(train: ImageFolder, test: ImageFolder) -> int:
    """How many of the images that one tests with are among those that the other, of the same folder, trains with.

    Raises:
        DataError: The folder has no such parts.
    """
    used, asked = train._list().train, test._list().test
    places = [[os.path.realpath(part.root / name) for name in part.names] for part in (used, asked)]
    return len(set(places[0]) & set(places[1]))


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise SpecError(f"ImageFolder: {name}={shown(value)}: must be {', '.join(map(repr, words))}.")
