"""Images that are broken or unusual: named and left out, or with the pixels of torchvision's own loader."""

from __future__ import annotations

import io
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import load_dataset
from layered_lr.data.decoding import Decoder
from tests.support.image_folders import make_folder, noise, save_image


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "pets")


def load(folder: Path, **options: Any) -> ll.Dataset:
    return load_dataset(ll.ImageFolder(folder, size=16, share=0.01, **options))


def images_of(data: ll.Dataset) -> list[bytes]:
    return sorted(image.tobytes() for part in (data.x_train, data.x_test) for image in part[:])


def png_of_zeros(width: int, height: int) -> bytes:
    """A PNG file of few bytes and many pixels."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(width * 3 + 1)) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    whole = (struct.pack(">I", len(of)) + kind + of + struct.pack(">I", zlib.crc32(kind + of)) for kind, of in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def changed(place: int, content: bytes, chunk: bytes = b"IDAT") -> bytes:
    """One byte behind the name of a chunk is another one."""
    found = bytearray(content)
    found[content.index(chunk) + place] ^= 255
    return bytes(found)


def bytes_of(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(noise(5, 16, 12, 3)).save(file, kind)
    return file.getvalue()


BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "pixels with a wrong checksum": ("x.png", lambda: changed(9, bytes_of("PNG")), "it is damaged"),
    "a header with a wrong checksum": ("x.png", lambda: changed(5, bytes_of("PNG"), b"IHDR"), "."),
    "a cut PNG": ("x.png", lambda: bytes_of("PNG")[:300], "truncated"),
    "a PNG's header alone": ("x.png", lambda: bytes_of("PNG")[:20], "."),
    "a cut JPEG": ("x.jpg", lambda: bytes_of("JPEG")[:-300], "[Tt]runcated"),
    "the beginning of a JPEG": ("x.jpg", lambda: b"\xff\xd8\xff" * 10, "no image that Pillow knows"),
    "no bytes": ("x.jpg", lambda: b"", "no image that Pillow knows"),
    "a text": ("x.jpg", lambda: b"hello", "no image that Pillow knows"),
    "a bomb": ("x.png", lambda: png_of_zeros(20_000, 20_000), "exceeds limit"),
}


@pytest.mark.parametrize(("name", "content", "why"), BROKEN.values(), ids=BROKEN)
def test_each_kind_of_broken_image_is_named_and_left_out(
    pets: Path, tmp_path: Path, name: str, content: Callable[[], bytes], why: str
) -> None:
    root = shutil.copytree(pets, tmp_path / "copy")
    whole = load(root)
    (root / "cat" / name).write_bytes(content())
    with pytest.raises(ll.DataError, match=rf"1 of 16 files cannot be used: cat/{name} \(.*{why}"):
        load(root)
    left = load(root, broken="skip")
    assert images_of(left) == images_of(whole), "as if it were not there"


def test_what_stands_in_the_place_of_an_image_is_named(pets: Path, tmp_path: Path) -> None:
    root = shutil.copytree(pets, tmp_path / "copy")
    whole = load(root)
    (root / "cat" / "nothing.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "cat" / "circle.jpg").symlink_to(root / "cat" / "circle.jpg")
    os.mkfifo(root / "cat" / "fifo.jpg")
    (root / "cat" / "folder.jpg").mkdir()  # holds no image, and is none
    with pytest.raises(ll.DataError, match=r"3 of 18 files cannot be used: cat/circle.jpg.*fifo.jpg.*nothing.jpg"):
        load(root)
    assert images_of(load(root, broken="skip")) == images_of(whole)


def save_unusual(root: Path) -> None:
    """Images that are rare and right, for which torchvision's loader has an answer."""
    from PIL import Image

    rgb, grey = Image.fromarray(noise(1, 16, 12, 3)), Image.fromarray(noise(2, 16, 12))
    palette = rgb.quantize(16)
    frames = [Image.fromarray(noise(place, 16, 12, 3)) for place in range(3)]
    rgb.convert("CMYK").save(root / "cmyk.jpg")
    rgb.convert("CMYK").save(root / "cmyk.tif")
    rgb.convert("LAB").save(root / "lab.tif")
    rgb.save(root / "progressive.jpg", progressive=True)
    grey.save(root / "grey.jpg")
    Image.merge("LA", (grey, grey)).save(root / "grey with alpha.png")
    Image.merge("RGBA", (*rgb.split(), grey)).save(root / "alpha.webp", lossless=True)
    palette.save(root / "palette.png")
    palette.save(root / "palette.bmp")
    palette.save(root / "palette with a transparent colour.png", transparency=3)
    palette.save(root / "palette with transparency.png", transparency=bytes(range(16)))
    rgb.save(root / "transparent colour.png", transparency=(1, 2, 3))
    frames[0].save(root / "several.tif", save_all=True, append_images=frames[1:])
    frames[0].save(root / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(root / "animated.png", save_all=True, append_images=frames[1:])
    parts = [each.quantize(16) for each in frames]
    parts[0].save(root / "animated.gif", save_all=True, append_images=parts[1:])
    (root / "animated.gif").rename(root / "animated gif.png")
    (root / "few greys.pgm").write_bytes(b"P5 12 16 100\n" + (noise(3, 16, 12) % 101).tobytes())
    (root / "text.ppm").write_bytes(b"P3 2 1 255\n1 2 3 4 5 6\n")


def test_unusual_images_have_the_pixels_of_torchvisions_loader(tmp_path: Path, recwarn: Any) -> None:
    folder = pytest.importorskip("torchvision.datasets.folder")
    save_unusual(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 18
    decoded = {file.name: Decoder(None, "crop", grey=False).decode(file) for file in files}
    assert not recwarn.list
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's of a palette with transparency, which torchvision's loader shows
        for file in files:
            expected = np.asarray(folder.default_loader(str(file)))
            np.testing.assert_array_equal(decoded[file.name], expected, err_msg=file.name)


def test_16_bits_of_every_format_become_8(tmp_path: Path) -> None:
    grey = noise(4, 16, 12)
    for name in ("a.png", "a.tif"):
        save_image(tmp_path / name, grey.astype(np.uint16) * 257)
    (tmp_path / "a.pgm").write_bytes(b"P5 12 16 65535\n" + (grey.astype(">u2") * 257).tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        assert (Decoder(None, "crop", grey=True).decode(tmp_path / name)[:, :, 0] == grey).all(), name


def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(pets, tmp_path / "copy")
    (root / "cat" / "more").mkdir()
    save_image(root / "cat" / "more" / "x.png", noise(9, 16, 12, 3))
    own = os.scandir

    def scan(path: Any) -> Any:  # as a folder without permission; the one who tests may be root, who may read all
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return own(path)

    monkeypatch.setattr(os, "scandir", scan)
    for broken in ("raise", "skip"):
        with pytest.raises(ll.DataError, match=r"cat/more cannot be read \(PermissionError"):
            load(root, broken=broken)
