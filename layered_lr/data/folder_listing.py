"""Which images a folder has, of which classes, for training and for testing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Int64
from layered_lr.data.random_draws import draw_split
from layered_lr.errors import DataError
from layered_lr.files import describe_error
from layered_lr.spelling import did_you_mean

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The endings that torchvision's ImageFolder takes; capital letters are good too."""
TRAIN_FOLDERS = ("train", "training")
_USUAL = ("val", "valid", "validation", "test")
TEST_FOLDERS = (*_USUAL, "testing", "dev")
"""The names of parts, in any case; of several test folders the first one of this list is taken."""
_WORD_OF_PART = re.compile(r"(train|training|test|testing|val|valid|validation|dev|eval)(set|data|images)?")


class Files(NamedTuple):
    """Images of one part of the data.

    Args:
        root: The folder that ``names`` are in.
        names: Paths of the images inside of it, with ``/``.
        labels: The class number of each.
    """

    root: Path
    names: tuple[str, ...]
    labels: Int64

    def path(self, index: int) -> Path:
        """Where an image is."""
        return self.root / self.names[index]

    def without(self, left_out: Sequence[int]) -> Files:
        """The images that stay when some are left out, by their numbers."""
        stays = np.ones(len(self.names), np.bool_)
        stays[list(left_out)] = False
        return self.take(np.flatnonzero(stays))

    def take(self, chosen: Int64) -> Files:
        """Some of the images, by their numbers."""
        return Files(self.root, tuple(self.names[index] for index in chosen.tolist()), self.labels[chosen])


class Listing(NamedTuple):
    """What a folder has.

    Args:
        classes: The names of the classes, sorted.
        train: Images to train with.
        test: Images to test with.
    """

    classes: tuple[str, ...]
    train: Files
    test: Files


def list_folder(root: Path, share: float, seed: int, test_folder: str | None) -> Listing:
    """Find the images of a folder, ``root/CLASS/*.jpg`` or ``root/train/CLASS/*.jpg`` with a test folder beside.

    Args:
        root: The folder.
        share: The part of each class to test with, where the folder has no part for it.
        seed: Of the draw of that part.
        test_folder: The folder to test with; None takes the first of ``TEST_FOLDERS``.

    Raises:
        DataError: No such folder, no classes, a class without images, a test image of an unknown class, or folders
            that may be classes or parts.
    """
    if not os.path.isdir(root):
        raise DataError(_describe_missing(root))
    parts = _folders(root)
    own = _find_train(root, parts, test_folder)
    if own is None:
        if test_folder is not None:
            raise DataError(f"{root}: has no folder 'train' with classes, so test_folder={test_folder!r} says nothing.")
        _refuse_parts_as_classes(root, parts)
        classes, train = _read_part(root, None)
        return Listing(classes, *_divide(train, classes, share, seed))
    tests = _find_test(root, parts, own, test_folder)
    classes, train = _read_part(root / own, None)
    if tests is None:
        return Listing(classes, *_divide(train, classes, share, seed))
    return Listing(classes, train, _read_part(root / tests, classes)[1])


def _find_train(root: Path, parts: Sequence[str], test_folder: str | None) -> str | None:
    """The folder of the training part, which has folders of classes; None where the folders are the classes.

    Raises:
        DataError: There are several such folders, or one has images beside its folders of classes.
    """
    found = [name for name in parts if name.lower() in TRAIN_FOLDERS and _folders(root / name)]
    loose = {name: min(_images_in(root / name), default=None) for name in found}
    whole = [name for name in found if loose[name] is None]
    tests = [name for name in parts if name.lower() in TEST_FOLDERS or name == test_folder]
    has_tests = any(_folders(root / name) for name in tests)
    for name in found:
        if not whole and (len(parts) == 1 or has_tests):
            raise DataError(
                f"{root / name}: has images that are in no folder of a class, such as {loose[name]}. Put each into its "
                "class's folder, or remove it."
            )
    if len(whole) > 1:
        raise DataError(
            f"{root}: {whole[0]!r} and {whole[1]!r} may both be the images to train with: leave one there, named "
            "'train'."
        )
    return whole[0] if whole else None


def _find_test(root: Path, parts: Sequence[str], train: str, test_folder: str | None) -> str | None:
    """The folder of the test part, beside that of the training part; None where there is none.

    Raises:
        DataError: There is no folder of the name that was given, or nobody can tell what the others are.
    """
    others = [name for name in parts if name != train]
    if test_folder is not None:
        if test_folder == train:
            raise DataError(
                f"{root}: test_folder={test_folder!r} is the folder to train with. Give another one, or leave it out."
            )
        if test_folder not in others:
            raise DataError(
                f"{root}: has no folder {test_folder!r}.{did_you_mean(test_folder, parts)} It has {', '.join(parts)}."
            )
        return test_folder
    known = [name for name in others if name in _USUAL or (name.lower() in TEST_FOLDERS and _holds_images(root, name))]
    if known:
        word = min((name.lower() for name in known), key=TEST_FOLDERS.index)
        first = [name for name in known if name.lower() == word]
        if len(first) > 1:
            raise DataError(
                f"{root}: {first[0]!r} and {first[1]!r} may both be the images to test with: say which one is, "
                f"test_folder={first[0]!r}."
            )
        return first[0]
    if unused := [name for name in others if _holds_images(root, name)]:
        raise DataError(
            f"{root}: {train!r} has folders of classes, so the images in {_shortened(unused)} beside it would not be "
            f"used. If {unused[0]!r} is what to test with, say test_folder={unused[0]!r}; if {train!r} is a class like "
            f"the others, give it another name; to use {train!r} alone, give the folder {root / train}."
        )
    return None


def _refuse_parts_as_classes(root: Path, parts: Sequence[str]) -> None:
    """Refuse to take folders for classes whose names and folders look like those of parts, such as ``train_set``.

    Raises:
        DataError: There are some.
    """
    alike = [name for name in parts if any(map(_WORD_OF_PART.fullmatch, _words_of(name)))]
    inside = {name: set(_folders(root / name)) for name in parts} if alike else {}
    for name in alike:
        same = [other for other in parts if other != name and len(inside[name] & inside[other]) > 1]
        if len(inside[name] & set(parts)) > 1 or same:
            classes = sorted(inside[name] & (inside[same[0]] if same else set(parts)))
            raise DataError(
                f"{root}: are the folders in it classes or parts? {name!r} has folders {_shortened(classes)}, as "
                f"{repr(same[0]) if same else 'the folder itself'} has. Name the parts 'train' and 'test', with a "
                "folder of each class in both; if they are classes, give their folders other names."
            )


def _words_of(name: str) -> list[str]:
    return re.split("[^a-z]+", name.lower())


def _holds_images(root: Path, name: str) -> bool:
    """Whether a folder holds images, also in folders inside; one that cannot be read holds none."""
    for _, inside, files in os.walk(root / name):
        inside[:] = [each for each in inside if not each.startswith(".")]
        if any(map(_is_image, files)):
            return True
    return False


def _describe_missing(root: Path) -> str:
    if os.path.lexists(root):
        return f"{root} is no folder: give the folder that has one folder of images for each class."
    try:
        others = sorted(other.name for other in root.parent.iterdir() if other.is_dir())
    except OSError:
        others = []
    return f"{root} does not exist.{did_you_mean(root.name, others)} Check the path of the folder of images."


def _folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))
    except OSError as error:
        raise DataError(f"{root} cannot be read ({describe_error(error)}): check its permissions.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _images_in(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if _is_image(entry.name))


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _read_part(root: Path, known: tuple[str, ...] | None) -> tuple[tuple[str, ...], Files]:
    """The classes and images of one part.

    Args:
        root: Its folder.
        known: The classes of the training part, which a test part may have; None for the training part itself.
    """
    classes = tuple(_folders(root))
    if known is not None and (odd := [name for name in classes if name not in known]):
        raise DataError(
            f"{root}: has class {odd[0]!r}, which has no training images.{did_you_mean(odd[0], known)} The classes are "
            f"{_shortened(known)}."
        )
    found = {name: _walk(root, name) for name in classes}
    if not classes or not any(found.values()):
        loose = sum(1 for _ in _images_in(root))
        hint = f" It has {loose} images that are in no folder of a class." if loose else ""
        raise DataError(
            f"{root}: has no images in folders of classes: put each class's into a folder of its own, such as "
            f"{root.name}/cat/1.jpg ({', '.join(ENDINGS)}).{hint}"
        )
    if known is None and len(classes) < 2:
        raise DataError(
            f"{root}: has one class, {classes[0]!r}: a classifier needs two or more. Give the folder above it if this "
            "is a class's own."
        )
    if known is None and (empty := [name for name in classes if not found[name]]):
        raise DataError(
            f"{root}: no images in {_shortened(empty)}: remove a folder that is no class, or put its images there "
            f"({', '.join(ENDINGS)})."
        )
    numbers = {name: number for number, name in enumerate(known or classes)}
    return known or classes, _files(root, found, numbers)


def _files(root: Path, found: Mapping[str, Sequence[str]], numbers: Mapping[str, int]) -> Files:
    names = tuple(name for each in found.values() for name in each)
    labels = np.repeat([numbers[name] for name in found], [len(each) for each in found.values()])
    return Files(root, names, labels.astype(np.int64))


def _walk(root: Path, name: str) -> list[str]:
    """The images of a class, also those in folders inside; in the order of torchvision's ImageFolder.

    Raises:
        DataError: A folder cannot be read.
    """
    return [file.relative_to(root).as_posix() for file in find_images(root / name)]


def find_images(folder: Path) -> list[Path]:
    """The images in a folder and in folders inside, in order; none that is hidden, or in a folder that is.

    Links are followed, but not to a folder above, nor to one twice.

    Raises:
        DataError: A folder cannot be read.
    """
    seen: set[str] = set()
    own = os.path.realpath(folder)
    places = []
    for place, inside, files in os.walk(folder, followlinks=True, onerror=_refuse_unreadable):
        real = os.path.realpath(place)
        if real in seen or own.startswith(real.rstrip("/") + "/"):  # a link to a folder above, or one met before
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(each for each in inside if not each.startswith("."))
        places.append((place, sorted(filter(_is_image, files))))
    return [Path(place) / file for place, files in sorted(places) for file in files]


def _refuse_unreadable(error: OSError) -> None:
    """Refuse a folder that cannot be read: its images would be missing without a word."""
    raise DataError(f"{error.filename} cannot be read ({describe_error(error)}): check its permissions.") from None


def _divide(files: Files, classes: Sequence[str], share: float, seed: int) -> tuple[Files, Files]:
    """Draw a share of each class for testing, one image at least; at least one stays for training."""
    order = draw_split(seed, len(files.names))
    in_test = np.zeros(len(files.names), np.bool_)
    for number, name in enumerate(classes):
        own = order[files.labels[order] == number]
        if len(own) < 2:
            raise DataError(
                f"{files.root}: class {name!r} has one image, and needs two or more: one to train with and one to test "
                "with. Or make folders train and test."
            )
        in_test[own[: min(max(1, round(share * len(own))), len(own) - 1)]] = True
    return files.take(np.flatnonzero(~in_test)), files.take(np.flatnonzero(in_test))


def _shortened(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(map(repr, names[:most])) + (f", … ({len(names)} in all)" if len(names) > most else "")
