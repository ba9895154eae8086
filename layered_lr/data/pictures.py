"""Images as people have them (files, folders, Pillow's images, arrays), brought to what a trained model takes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from layered_lr.arrays import Array, Float32
from layered_lr.data.arrays import as_images, widened
from layered_lr.data.decoding import BadImage, Decoder, Fit
from layered_lr.data.folder_listing import ENDINGS, find_images
from layered_lr.data.normalisation import normalisation_table, normalise
from layered_lr.data.resizing import resizing_matrix
from layered_lr.errors import DataError, SpecError
from layered_lr.files import as_path, describe_error
from layered_lr.printed import shown


class Wanted(NamedTuple):
    """What images a model takes.

    Args:
        shape: (channels, height, width) as the model gets them.
        sizes: (height, width) of images that are taken as they are.
        normalisation: Mean and standard deviation of each channel of pixels / 255; None takes floats as they are.
        resizes: Whether images of other sizes are resized, whatever they are.
        folder_size: Pixels of a side that files get as ``fit`` says, as in a folder of images; None leaves them.
        fit: How a file that is no square becomes one, see ``Decoder``.
    """

    shape: tuple[int, int, int]
    sizes: tuple[tuple[int, int], ...]
    normalisation: tuple[Float32, Float32] | None
    resizes: bool
    folder_size: int | None = None
    fit: Fit = "stretch"


class Picture(NamedTuple):
    """One image that is read when its turn comes.

    Args:
        name: What messages and tables call it.
        read: Reads it: pixels, uint8 of shape (H, W, C), or floats of shape (C, H, W).
        is_file: Whether it is a file or Pillow's image, which may have any size.
    """

    name: str
    read: Callable[[], Array]
    is_file: bool


Source: TypeAlias = Any
"""A path, Pillow's image, an array, or a list of these."""


class Pictures:
    """Images in their order, which are read, normalised and resized batch by batch.

    Args:
        source: A file, a folder, Pillow's image, an array of one image or of several, or a list of these.
        wanted: What the model takes.
        resize: Whether images of other sizes are resized; None resizes files and Pillow's images, and refuses arrays.

    Attributes:
        names: What each image is called: the path of its file, or its number.
        resized: How many of those that have been read had another size.

    Raises:
        SpecError: This is nothing of that kind.
        DataError: There are no images, or arrays of another kind than the model takes.
    """

    def __init__(self, source: Source, wanted: Wanted, resize: bool | None = None) -> None:
        if resize is not None and not isinstance(resize, bool):
            raise SpecError(f"resize={shown(resize)}: must be True, False or None.")
        if resize is False:  # a file is not made to fit either
            wanted = wanted._replace(folder_size=None)
        self._wanted, self._resize = wanted, resize
        self._items = list(_list_pictures(source, wanted))
        if not self._items:
            raise DataError("images: there are none; give at least one.")
        self.names = tuple(item.name for item in self._items)
        self.resized = 0
        self._table = None if wanted.normalisation is None else normalisation_table(*wanted.normalisation)

    def __len__(self) -> int:
        return len(self._items)

    def batches(self, batch_size: int) -> Iterator[Float32]:
        """Yield the images as the model takes them, float32 of shape (N, C, H, W); the last batch may be smaller.

        Raises:
            DataError: A file is damaged, or an image has another size or number of channels.
        """
        for start in range(0, len(self._items), batch_size):
            yield np.stack([self._prepare(item) for item in self._items[start : start + batch_size]])

    def _prepare(self, item: Picture) -> Float32:
        image = item.read()
        pixels = image.dtype == np.uint8
        if pixels != (self._table is not None):
            raise DataError(f"images: {item.name} holds {image.dtype}. {_explain_kind(self._wanted)}")
        channels, height, width = (image.shape[2], *image.shape[:2]) if pixels else image.shape
        if channels != self._wanted.shape[0]:
            raise DataError(
                f"images: {item.name} has {channels} channels; the model takes {self._wanted.shape[0]}."
                " Give images like those that it was trained on."
            )
        if (height, width) not in self._wanted.sizes:
            self._check_resizing(item, height, width)
        made = image[None] if self._table is None else normalise(image[None], self._table)
        resized: Float32 = resize(made, *self._wanted.shape[1:])[0]
        return resized

    def _check_resizing(self, item: Picture, height: int, width: int) -> None:
        allowed = (item.is_file or self._wanted.resizes) if self._resize is None else self._resize
        if not allowed:
            sizes = " or ".join(f"{high}x{wide}" for high, wide in self._wanted.sizes)
            raise DataError(
                f"images: {item.name} is {height}x{width} (height x width); the model was trained on {sizes}. Give "
                "images of that size, or resize=True (--resize)."
            )
        self.resized += 1


def resize(images: Float32, height: int, width: int) -> Float32:
    """Resize images, float32 NCHW, as ``Resizer`` does; those that have the size are returned as they are."""
    high, wide = images.shape[2:]
    if (high, wide) == (height, width):
        return images
    rows, columns = resizing_matrix(high, height), np.ascontiguousarray(resizing_matrix(wide, width).T)
    resized: Float32 = np.matmul(np.matmul(rows, images), columns)
    return resized


def _explain_kind(wanted: Wanted) -> str:
    if wanted.normalisation is None:
        return (
            "The model was trained on images of floats, which were prepared before: give float arrays of shape "
            "(N, C, H, W), prepared in the same way."
        )
    return (
        "The model was trained on pixels, and normalises them itself: give uint8 of 0 to 255, shape (N, H, W, C) or "
        "(N, C, H, W)."
    )


def _list_pictures(source: Source, wanted: Wanted, place: str = "") -> Iterator[Picture]:
    """List what a source holds, in order; arrays are checked at once, files when they are read.

    Args:
        source: What was given.
        wanted: What the model takes.
        place: The place in a list, for names; empty for a source by itself.
    """
    if isinstance(source, str | os.PathLike):
        yield from _list_files(as_path("images", source), wanted)
    elif _is_pillow(source):
        name = place or "0"
        yield Picture(
            name, functools.partial(_from_pillow, source, _find_decoder(wanted, "images"), f"image {name}"), True
        )
    elif isinstance(source, list | tuple) and not all(map(_is_number_or_list, source)):
        for index, each in enumerate(source):
            yield from _list_pictures(each, wanted, f"{place}.{index}" if place else str(index))
    elif hasattr(source, "__array__") or (isinstance(source, list | tuple) and source):
        yield from _list_array(source, wanted, place)
    elif not isinstance(source, list | tuple):
        raise SpecError(
            f"images={shown(source)}: must be a file, a folder, an array, an image of Pillow, or a list of these."
        )


def _is_number_or_list(value: object) -> bool:
    """Whether a list may be an array: of numbers, or of lists of them."""
    if isinstance(value, list | tuple):
        return all(map(_is_number_or_list, value))
    return isinstance(value, int | float | np.number)


def _list_array(source: Any, wanted: Wanted, place: str) -> Iterator[Picture]:
    images = _as_batch(source, wanted)
    for index in range(len(images)):
        name = str(index) if not place else place if len(images) == 1 else f"{place}.{index}"
        yield Picture(name, functools.partial(images.__getitem__, index), False)


def _as_batch(source: Any, wanted: Wanted) -> Array:
    """Bring an array to pixels of shape (N, H, W, C), or floats of shape (N, C, H, W)."""
    try:
        array: Array = np.asarray(widened(source))
    except Exception as error:  # whatever a foreign __array__ raises
        raise DataError(f"images cannot become a NumPy array ({describe_error(error)}): give numbers.") from None
    channels = wanted.shape[0]
    received = f"Received {array.dtype} of shape {array.shape}."
    if array.dtype.kind not in "iufb" or (array.dtype == np.uint8) != (wanted.normalisation is not None):
        raise DataError(f"images: {_explain_kind(wanted)} {received}")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        is_one = channels in (array.shape[0], array.shape[2])
        array = array[None] if is_one else array[:, None] if array.dtype.kind == "f" else array[..., None]
    if array.ndim != 4:
        raise DataError(f"images: {_explain_kind(wanted)} {received}")
    if array.dtype == np.uint8 and array.shape[3] != channels and array.shape[1] == channels:
        array = array.transpose(0, 2, 3, 1)
    found = array.shape[3] if array.dtype == np.uint8 else array.shape[1]
    if array.size and found != channels:
        raise DataError(
            f"images: they have {found} channels; the model takes {channels}. {_explain_kind(wanted)} {received}"
        )
    return as_images("images", array)


def _list_files(path: Path, wanted: Wanted) -> Iterator[Picture]:
    if os.path.isdir(path):
        files = sorted(find_images(path))
        if not files:
            raise DataError(
                f"images={str(path)!r}: there is no image in this folder. Images end in {', '.join(ENDINGS)}."
            )
    else:
        files = [path]
        if not os.path.lexists(path):
            raise DataError(f"images={str(path)!r}: there is no such file or folder; check the path.")
    decoder = _find_decoder(wanted, f"images={str(path)!r}")
    for file in files:
        yield Picture(str(file), functools.partial(_read_file, file, decoder), True)


def _read_file(file: Path, decoder: Decoder) -> Array:
    try:
        return decoder.decode(file)
    except BadImage as error:
        raise DataError(f"{file} cannot be read: {error}.") from None


def _is_pillow(value: object) -> bool:
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def _from_pillow(image: Any, decoder: Decoder, name: str) -> Array:
    try:
        return decoder.convert(image)
    except Exception as error:  # an image that Pillow reads only now may be damaged in many ways
        raise DataError(f"{name} cannot be read: {describe_error(error)}.") from None


def _find_decoder(wanted: Wanted, what: str) -> Decoder:
    """What makes pixels of a file for a model: as in its run's folder of images, else in the size that the file has.

    Raises:
        DataError: The model takes floats, or another number of channels than files have.
    """
    channels = wanted.shape[0]
    if wanted.normalisation is None:
        raise DataError(f"{what}: {_explain_kind(wanted)}")
    if channels not in (1, 3):
        raise DataError(f"{what}: the model takes {channels} channels, which no file has: give an array.")
    return Decoder(wanted.folder_size, wanted.fit, grey=channels == 1)
