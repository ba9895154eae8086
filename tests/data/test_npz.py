"""A data set from an .npz: what is read, and one line for each way in which a file can be wrong."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Dataset, load_dataset
from layered_lr.errors import DataError

SUBSET = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-subset.npz"


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    return {"x_train": x[:6], "y_train": np.arange(6), "x_test": x[6:], "y_test": np.arange(3, dtype=np.uint8)}


def npz_bytes(save: Callable[..., None] = np.savez, **changes: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, **{**arrays(), **changes})
    return stream.getvalue()


def same_arrays(data: Dataset) -> bool:
    return all(np.array_equal(getattr(data, key), value) for key, value in arrays().items())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [str, Path])
def test_an_npz_is_read_by_str_and_by_path(tmp_path: Path, save: Any, kind: Any) -> None:
    (tmp_path / "mine.npz").write_bytes(npz_bytes(save, more=np.zeros(3)))
    data = load_dataset(kind(tmp_path / "mine.npz"))
    assert same_arrays(data) and data.name == "mine" and data.augment is False
    assert data.y_test.dtype == np.int64


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.npz").write_bytes(npz_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same_arrays(load_dataset("~/mine.npz"))


def test_real_images_load(tmp_path: Path) -> None:
    """A subset of CIFAR-10 where it lies beside the repository; the embedded digits elsewhere."""
    path = SUBSET
    if not SUBSET.exists():
        path, digits = tmp_path / "digits.npz", load_dataset("digits")
        np.savez(path, **{name: getattr(digits, name) for name in arrays()})
    data = load_dataset(path)
    with np.load(path) as file:
        pixels, tests = file["x_train"].astype(np.float64) / 255, file["x_test"]
    count, height, width, channels = pixels.shape
    assert data.facts[:4] == (count, len(tests), 10, (channels, height, width))
    assert data.name == path.stem and data.x_train.dtype == np.uint8
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), atol=1e-5)  # type: ignore[arg-type]
    if path == SUBSET:
        assert data.facts[:4] == (4000, 600, 10, (3, 32, 32))
        # The published statistics of all of CIFAR-10; a random 4,000 of its images come within a few thousandths.
        np.testing.assert_allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=0.01)  # type: ignore[arg-type]
        np.testing.assert_allclose(data.std, [0.2470, 0.2435, 0.2616], atol=0.01)  # type: ignore[arg-type]


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine.npz does not exist, and there is no \.npz file in its folder"):
        load_dataset(tmp_path / "mine.npz")
    for name in ("mine-2.npz", "other.npz"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"does not exist\. Did you mean 'mine-2.npz'\?.*: mine-2.npz, other.npz\."):
        load_dataset(str(tmp_path / "mine.npz"))
    with pytest.raises(DataError, match="does not exist, and its folder does not exist either"):
        load_dataset(tmp_path / "nowhere" / "mine.npz")
    with pytest.raises(DataError, match="has no images in folders of classes"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".npz", "a\0b.npz", ".npz", "~nobody-at-all/a.npz", "a" * 5000 + "/b.npz"]
)
def test_impossible_paths_are_missing_files(name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(name)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # to root, whom CI may run as, no file refuses itself
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "mine.npz").write_bytes(npz_bytes())
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(DataError, match=r"mine.npz cannot be read \(PermissionError: .*Permission denied"):
        load_dataset(tmp_path / "mine.npz")


def encrypted() -> bytes:
    """With the bit set that says a member is encrypted, in its local header and in the directory."""
    content = bytearray(npz_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + flags] |= 1
    return bytes(content)


def with_member(member: bytes) -> bytes:
    """An .npz whose x_train is no array but these bytes, with a correct checksum."""
    stream = io.BytesIO(npz_bytes())
    with zipfile.ZipFile(stream) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | {"x_train.npy": member}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


HUGE = (
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 9000000000000000, 9, 9)}".ljust(0x76)
)

WRONG = {
    "empty": (b"", "is not an .npz file, or is damaged .BadZipFile"),
    "text": (b"x_train,y_train\n1,2\n", "is not an .npz file, or is damaged"),
    "npy": (npy_bytes(np.zeros(3)), "is not an .npz file, or is damaged"),
    "pickle": (b"\x80\x04K\x01.", "is not an .npz file, or is damaged"),
    "half": (npz_bytes()[:700], "is not an .npz file, or is damaged"),
    "encrypted": (encrypted(), "is not an .npz file, or is damaged .RuntimeError.*encrypted"),
    "no array": (with_member(b"hello"), "is not an .npz file, or is damaged .ValueError"),
    "short array": (with_member(npy_bytes(np.zeros(30))[:-1]), "is not an .npz file, or is damaged .ValueError"),
    "long array": (with_member(npy_bytes(np.zeros(30)) + b"1"), "x_train.npy is longer than its header says"),
    "huge array": (with_member(HUGE), "is not an .npz file, or is damaged"),
    "objects": (npz_bytes(x_train=np.array([None, 1])), "x_train.npy holds Python objects, which are never loaded"),
    "no arrays": (
        npz_bytes(lambda stream, **_: np.savez(stream)),
        "lacks x_train, y_train, x_test, y_test; it has nothing",
    ),
    "other names": (
        npz_bytes(lambda stream, x_train, **rest: np.savez(stream, images=x_train, **rest)),
        "mine.npz lacks x_train; it has images, y_train, x_test, y_test. It needs x_train, y_train, x_test, y_test",
    ),
    "wrong arrays": (npz_bytes(y_train=np.arange(5)), "data 'mine': x_train has 6 images, but y_train has 5 labels"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_explained_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_never_gives_other_pixels(tmp_path: Path, save: Any) -> None:
    """Cut short, or with bits flipped, a file is refused, or loads what was saved (a bit that nobody reads)."""
    rng = np.random.default_rng(7)
    whole = npz_bytes(save)
    damaged = [whole[: int(cut)] for cut in rng.integers(0, len(whole), 200)]
    for _ in range(600):
        flipped = bytearray(whole)
        for position in rng.integers(0, len(whole), int(rng.integers(1, 4))):
            flipped[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    damaged += [rng.bytes(int(size)) for size in rng.integers(0, 2000, 50)]
    path = tmp_path / "mine.npz"
    refusals = []
    for content in damaged:
        path.write_bytes(content)
        try:
            data = load_dataset(path)
        except DataError as error:
            refusals.append(str(error))
        else:
            assert same_arrays(data)
    assert len(refusals) > len(damaged) / 2
    assert not any("\n" in refusal for refusal in refusals)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "mine.npz").write_bytes(npz_bytes(y_train=np.array([Trap()], dtype=object)))
    with pytest.raises(DataError, match="holds Python objects"):
        load_dataset(tmp_path / "mine.npz")
    assert not (tmp_path / "sprung").exists()
