"""Images as people have them: files, folders, Pillow's images, arrays."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layered_lr as ll
from layered_lr.data.batches import Batches
from layered_lr.data.dataset import Dataset
from layered_lr.data.pictures import Pictures, Wanted

MEAN, STD = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
RGB = Wanted((3, 5, 4), ((5, 4),), (MEAN, STD), False)
GREY = Wanted((1, 5, 4), ((5, 4),), (MEAN[:1], STD[:1]), False)
FLOATS = Wanted((3, 5, 4), ((5, 4),), None, False)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)


def read(source: Any, wanted: Wanted = RGB, resize: bool | None = None) -> Any:
    return np.concatenate(list(Pictures(source, wanted, resize).batches(2)))


EXPECTED = ((PIXELS / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "source",
    [
        PIXELS,
        PIXELS.transpose(0, 3, 1, 2),
        list(PIXELS),
        [image.transpose(2, 0, 1) for image in PIXELS],
        [Image.fromarray(image) for image in PIXELS],
        (PIXELS[:2], PIXELS[2]),
    ],
    ids=["NHWC", "NCHW", "HWC each", "CHW each", "Pillow", "mixed"],
)
def test_the_same_pixels_in_every_form(source: Any) -> None:
    assert np.allclose(read(source), EXPECTED, atol=1e-6)  # float64 against a table that is rounded to float32


@pytest.mark.parametrize("shape", [(2, 5, 4), (5, 4), (2, 5, 4, 1), (2, 1, 5, 4), (5, 4, 1), (1, 5, 4)])
def test_grey_arrays_need_no_axis_for_the_channel(shape: tuple[int, ...]) -> None:
    grey = PIXELS[:2, :, :, 0]
    count = int(np.prod(shape)) // 20
    given = grey[:count].reshape(shape)
    expected = ((grey[:count] / 255 - MEAN[0]) / STD[0])[:, None]
    assert np.allclose(read(given, GREY), expected, atol=1e-6)


def test_pixels_are_those_that_a_run_makes_of_its_data() -> None:
    dataset = Dataset("x", PIXELS, [0, 1, 2], PIXELS, [0, 1, 2])
    batches = Batches(dataset, 3, image_size=7, normalisation=(MEAN, STD))
    made = read(PIXELS, Wanted((3, 7, 7), ((5, 4), (7, 7)), (MEAN, STD), True))
    assert made.tobytes() == next(batches.test())[0].tobytes()


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    for name, image in zip(("b/1.png", "a/2.PNG", "c.bmp"), PIXELS, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = Pictures(tmp_path, RGB)
    assert [os.path.relpath(name, tmp_path) for name in found.names] == ["a/2.PNG", "b/1.png", "c.bmp"]
    assert np.allclose(read(tmp_path), EXPECTED[[1, 0, 2]], atol=1e-6)
    assert np.allclose(read([str(tmp_path / "c.bmp"), tmp_path / "b"]), EXPECTED[[2, 0]], atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_a_file_has_the_channels_that_the_model_takes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS[0]).convert(mode)
    name = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(name)
    assert read(name).shape == (1, 3, 5, 4) and read(name, GREY).shape == (1, 1, 5, 4)
    assert np.allclose(read(name), read(np.asarray(image.convert("RGB"))))


def test_files_of_other_sizes_are_resized_and_arrays_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 2, 3), 51, np.uint8)).save(tmp_path / "x.png")
    found = Pictures(tmp_path / "x.png", RGB)
    (made,) = found.batches(1)
    assert found.resized == 1 and np.allclose(made, ((0.2 - MEAN) / STD)[:, None, None], atol=1e-5)
    with pytest.raises(ll.DataError, match=r"x\.png is 9x2.*trained on 5x4.*resize=True"):
        read(tmp_path / "x.png", resize=False)
    with pytest.raises(ll.DataError, match=r"0 is 4x5"):
        read(PIXELS[:, :4].repeat(2, 2)[:, :, :5])
    assert read(PIXELS[:, :4], resize=True).shape == (3, 3, 5, 4)


def damaged(folder: Path) -> dict[str, Any]:
    Image.fromarray(PIXELS[0]).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:-30])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "nothing").mkdir()
    Image.fromarray(np.zeros((5, 4), np.float32)).save(folder / "deep.tif")
    os.mkfifo(folder / "fifo.png")
    return {
        "cut.png": folder / "cut.png",
        "text.jpg": folder / "text.jpg",
        "empty.png": folder / "empty.png",
        "no image in this folder": folder / "nothing",
        "32 bits": folder / "deep.tif",
        "a FIFO": folder / "fifo.png",
        "no such file": folder / "gone.png",
        "there are none": [],
        "uint8 of 0 to 255": PIXELS.astype(np.float32),
        "uint8 of 0 to 255, shape": PIXELS.astype(np.int64),
        "4 channels": np.zeros((2, 5, 4, 4), np.uint8),
        "they have 1 channels": np.zeros((2, 5, 4, 1), np.uint8),
        "is empty": np.zeros((0, 5, 4, 3), np.uint8),
        "shape (5,)": np.zeros(5, np.uint8),
        "<U1": np.array(["a", "b"]),
        "must be a file": 3,
    }


def test_what_is_no_such_image_is_refused_in_one_line(tmp_path: Path) -> None:
    for words, source in damaged(tmp_path).items():
        with pytest.raises((ll.DataError, ll.SpecError)) as caught:
            read(source)
        assert words in str(caught.value) and "\n" not in str(caught.value), words


def test_a_run_on_floats_takes_floats_alone(tmp_path: Path) -> None:
    floats = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    assert np.array_equal(read(floats, FLOATS), floats) and np.array_equal(read(floats[0], FLOATS), floats[:1])
    Image.fromarray(PIXELS[0]).save(tmp_path / "x.png")
    for wrong in (PIXELS, tmp_path / "x.png", Image.fromarray(PIXELS[0])):
        with pytest.raises(ll.DataError, match="prepared before"):
            read(wrong, FLOATS)
    with pytest.raises(ll.DataError, match="NaN"):
        read(np.full((1, 3, 5, 4), np.nan, np.float32), FLOATS)


def test_hidden_files_of_a_folder_are_left_out_and_links_followed_without_end(tmp_path: Path) -> None:
    own, more = tmp_path / "own", tmp_path / "more"
    for file in (own / "a.png", own / ".cache" / "c.png", own / "in" / "b.png", more / "d.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[0]).save(file)
    (own / "._a.png").write_bytes(b"what macOS writes beside a file")
    (own / "in" / "link").symlink_to(more)
    (own / "in" / "again").symlink_to(own)
    names = [str(Path(name).relative_to(own)) for name in Pictures(own, RGB).names]
    assert names == ["a.png", "in/b.png", "in/link/d.png"] and len(read(own)) == 3
    (own / ".cache" / "._c.png").write_bytes(b"")
    assert len(Pictures(own / ".cache", RGB)) == 1  # a hidden folder that is given itself


def test_bfloat16_is_widened() -> None:
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy()).bfloat16()
    assert read(images, FLOATS).tobytes() == images.float().numpy().tobytes()
