"""Pixels of an image file: decoded by Pillow, turned upright, brought to RGB or grey, and to one size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from layered_lr.arrays import Array
from layered_lr.files import describe_error, read_plain

Fit: TypeAlias = Literal["crop", "stretch", "pad"]
FITS: tuple[Fit, ...] = ("crop", "stretch", "pad")

_ORIENTATION = 0x0112  # the EXIF tag
_MOST_FILE_BYTES = 1 << 30
_LARGEST_RATIO = 100  # of the sides; the part that "crop" cuts away would fill the memory


class BadImage(Exception):
    """A file is no image, or is damaged; the message says why, in a few words."""


class Decoder(NamedTuple):
    """Makes an array of an image file.

    Args:
        size: Pixels of a side; None leaves an image as it is.
        fit: How an image that is no square becomes one: ``"crop"`` scales the shorter side to ``size`` and cuts the
            middle out, as torchvision's ``Resize(size)`` and ``CenterCrop(size)``; ``"stretch"`` scales both sides;
            ``"pad"`` scales the longer side to ``size`` and fills up with black.
        grey: Whether images have one channel instead of three.
        turns: Whether images are turned as their EXIF data say.
    """

    size: int | None
    fit: Fit
    grey: bool
    turns: bool = True

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return 1 if self.grey else 3

    def decode(self, path: Path) -> Array:
        """Read one image, uint8 ``(H, W, C)``, newly allocated.

        The pixels are those of Pillow's ``convert("RGB")`` (or ``"L"``), which drops what is transparent, but 16 bits
        are scaled to 8, and an image is turned as its EXIF data say.

        Raises:
            BadImage: The file cannot be read, is no image, or is damaged.
        """
        try:
            content = read_plain(path, _MOST_FILE_BYTES)
        except OSError as error:
            raise BadImage(describe_error(error)) from None
        try:
            return self._decode(content)
        except BadImage:
            raise
        except Exception as error:  # of a damaged file Pillow raises many kinds, and warnings may be errors
            raise BadImage(_why(error)) from None

    def find_size(self, path: Path) -> tuple[int, int]:
        """Read height and width of one image from the beginning of its file, without its pixels.

        Raises:
            BadImage: The file cannot be read, or is no image.
        """
        from PIL import Image

        try:
            if not path.is_file():
                raise BadImage("it is no plain file")
            with Image.open(path) as image:
                width, height = image.size
                return (width, height) if _orientation(image) >= 5 else (height, width)
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(_why(error)) from None

    def _decode(self, content: bytes) -> Array:
        from PIL import Image

        with Image.open(io.BytesIO(content)) as opened:
            if opened.format == "PNG":
                _check_sums(content)
            return self.convert(opened)

    def convert(self, image: Any) -> Array:
        """Make the array of a Pillow image, uint8 ``(H, W, C)``, newly allocated.

        Raises:
            BadImage: It has pixels of 32 bits, or is too narrow.
        """
        from PIL import ImageOps

        if self.turns and _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        image = self._in_mode(image)
        if self.size is not None:
            image = self._fit(image, self.size)
        pixels: Array = np.array(image)
        return pixels[:, :, None] if self.grey else pixels

    def _in_mode(self, image: Any) -> Any:
        """The image in mode RGB or L."""
        mode = "L" if self.grey else "RGB"
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            image = _narrowed(image)
        elif image.mode in ("I", "F"):
            raise BadImage("its pixels have 32 bits: save it with 8 or 16")
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow warns of converting such a palette to RGB directly
        return image.copy() if image.mode == mode else image.convert(mode)

    def _fit(self, image: Any, size: int) -> Any:
        from PIL import Image

        width, height = image.size
        bilinear = Image.Resampling.BILINEAR
        if self.fit == "stretch":
            return image.resize((size, size), bilinear)
        short, long = min(width, height), max(width, height)
        if long > _LARGEST_RATIO * short:
            raise BadImage(f"it is {width}x{height}: one side is more than {_LARGEST_RATIO} times the other")
        if self.fit == "crop":
            other = int(size * long / short)  # as torchvision's Resize rounds
            wide, high = (size, other) if width <= height else (other, size)
            image = image.resize((wide, high), bilinear)
            left, top = round((wide - size) / 2.0), round((high - size) / 2.0)  # as its CenterCrop does
            return image.crop((left, top, left + size, top + size))
        other = max(1, round(size * short / long))
        wide, high = (size, other) if width >= height else (other, size)
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize((wide, high), bilinear), ((size - wide) // 2, (size - high) // 2))
        return square


def _check_sums(content: bytes) -> None:
    """Refuse a PNG file whose checksums do not fit: Pillow decodes other pixels than were written, and says nothing.

    Raises:
        BadImage: A checksum does not fit.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.verify()
    except SyntaxError as error:  # Pillow's of a checksum
        raise BadImage(f"it is damaged: {error}") from None
    except OSError:  # its end is missing: decoding it says whether there are pixels missing too
        return


def _why(error: Exception) -> str:
    """Pillow's words; those of a file that it does not know name an object in memory."""
    unknown = type(error).__name__ == "UnidentifiedImageError"
    return "it is no image that Pillow knows" if unknown else describe_error(error)


def _orientation(image: Any) -> int:
    """What the EXIF data say of how the image is to be turned; 1, upright, where they say nothing readable."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: the pixels may be good
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _narrowed(image: Any) -> Any:
    """A grey image of 16 bits in 8, rounded: Pillow itself would clip at 255."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8))
