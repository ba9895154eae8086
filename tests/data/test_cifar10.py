"""CIFAR-10 from a small archive of the same make: where it is looked for, what is checked, and the download."""

import gc
import hashlib
import io
import pickle
import socket
import struct
import tarfile
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Batches, cifar10, cifar_archive, dataset_facts, load_dataset
from layered_lr.data.cifar10_pickles import load_arrays
from layered_lr.errors import DataError

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
PIXELS = {name: np.random.default_rng(i).integers(0, 256, (4, 3072), dtype=np.uint8) for i, name in enumerate(NAMES)}
LABELS = {name: [(i + k) % 10 for k in range(4)] for i, name in enumerate(NAMES)}


def python2_pickle(pixels: Any, labels: list[int]) -> bytes:
    """The opcodes that Python 2's cPickle wrote into the real archive: its ``str`` are byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        b"(K\x01" + b"M" + struct.pack("<H", pixels.shape[0]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86"
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    )
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + bytes(array) + text(b"labels") + listed + b"u."


def make_archive(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in {"readme.html": b"<html>", "../../outside": b"evil", **contents}.items():
            member = tarfile.TarInfo(name if "/" in name else f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


CONTENTS = {name: python2_pickle(PIXELS[name], LABELS[name]) for name in NAMES}
ARCHIVE = make_archive(CONTENTS)


def md5(content: bytes | bytearray) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of the small archive, and a URL that refuses at once."""
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(ARCHIVE))
    monkeypatch.setattr(cifar10, "MEMBERS_MD5", {name: md5(CONTENTS[name]) for name in NAMES})
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def check(root: Path | None) -> None:
    data = load_dataset("cifar10", root)
    assert data.name == "cifar10" and data.augment is True
    assert data.x_train.shape == (20, 32, 32, 3) and data.x_train.dtype == np.uint8
    for i, name in enumerate(NAMES[:5]):
        for k in range(4):
            row = PIXELS[name][k]  # 1,024 of red, then green, then blue, each row by row
            assert data.x_train[4 * i + k, 5, 9].tolist() == [row[5 * 32 + 9 + 1024 * c] for c in range(3)]
    np.testing.assert_array_equal(data.x_test.transpose(0, 3, 1, 2).reshape(4, 3072), PIXELS["test_batch"])
    assert data.y_train.tolist() == [label for name in NAMES[:5] for label in LABELS[name]]
    assert data.y_test.tolist() == LABELS["test_batch"]
    assert next(iter(Batches(data, 8).epoch(0)))[0].shape == (8, 3, 32, 32)


def unpack(folder: Path, **changes: bytes | None) -> Path:
    folder.mkdir(parents=True)
    for name, content in {**CONTENTS, **changes}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_archive_is_read_without_extracting_anything(tmp_path: Path) -> None:
    (tmp_path / "in" / "here").mkdir(parents=True)
    archive = tmp_path / "in" / "here" / "cifar-10-python.tar.gz"
    archive.write_bytes(ARCHIVE)
    check(archive.parent)
    check(archive)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_the_folder_is_found_inside_data_root_and_as_data_root(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "cifar-10-batches-py")
    check(tmp_path)
    check(folder)
    check(unpack(tmp_path / "another name"))


def test_by_default_it_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch  # type: ignore[import-untyped]

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    unpack(tmp_path / "layered_lr" / "cifar-10-batches-py")
    check(None)


def test_a_pickle_of_python_3_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: pickle.dumps({b"data": PIXELS[name], b"labels": LABELS[name]}, 4) for name in NAMES}
    monkeypatch.setattr(cifar10, "MEMBERS_MD5", {name: md5(contents[name]) for name in NAMES})
    unpack(tmp_path / "cifar-10-batches-py", **contents)
    check(tmp_path)


def test_a_damaged_file_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_archive, "load_arrays", lambda content: pytest.fail("unpickled"))
    flipped = bytearray(CONTENTS["data_batch_3"])
    flipped[500] ^= 1
    folder = unpack(tmp_path / "a" / "cifar-10-batches-py", data_batch_3=bytes(flipped))
    message = refused(tmp_path / "a")
    assert f"{folder / 'data_batch_3'} is damaged or another file: its md5 is {md5(flipped)}, not" in message
    for damaged in (ARCHIVE[:-1], ARCHIVE[:100], b"", ARCHIVE + b"0"):
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(damaged)
        message = refused(tmp_path)
        assert f"cifar-10-python.tar.gz is damaged or another file: its md5 is {md5(damaged)}" in message
        assert f"not {md5(ARCHIVE)}" in message


@pytest.mark.parametrize("lacking", NAMES)
def test_an_archive_that_lacks_a_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    archive = make_archive({name: CONTENTS[name] for name in NAMES if name != lacking})
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(archive))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    assert f"{lacking} is damaged" in refused(tmp_path)


def test_an_incomplete_folder_is_named_unless_the_archive_is_there(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "cifar-10-batches-py", data_batch_2=None, test_batch=None)
    assert f"{folder} lacks data_batch_2, test_batch: unpack" in refused(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(ARCHIVE)
    check(tmp_path)


def test_a_pickle_can_make_arrays_and_nothing_else(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    with pytest.raises(pickle.UnpicklingError, match="does not belong in a CIFAR-10 batch"):
        load_arrays(pickle.dumps({b"data": Trap()}))
    assert not (tmp_path / "sprung").exists()


def test_offline_the_message_says_what_to_put_where(tmp_path: Path) -> None:
    message = refused(tmp_path / "new")
    assert f"CIFAR-10 is not in {tmp_path / 'new'} and could not be downloaded." in message
    assert f"Put cifar-10-python.tar.gz (from {cifar10.URL}, md5 {md5(ARCHIVE)}) into that folder" in message
    assert "ConnectionError" in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{server.getsockname()[1]}/cifar-10-python.tar.gz")
        monkeypatch.setattr(cifar_archive, "TIMEOUT_SECONDS", (0.2, 0.2))
        assert "ReadTimeout" in refused(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_data_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file: give the folder" in refused(tmp_path / "file")
    assert "could not be downloaded" in refused(tmp_path / "file" / "below")
    assert f"CIFAR-10 is not in {tmp_path} and" in refused(tmp_path / "cifar-10-python.tar.gz")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files are served, where the URL points to."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
        yield folder
        server.shutdown()
        thread.join()


def test_it_is_downloaded_once(tmp_path: Path, served: Path) -> None:
    (served / "cifar-10-python.tar.gz").write_bytes(ARCHIVE)
    root = tmp_path / "new" / "root"
    check(root)
    assert [path.name for path in root.iterdir()] == ["cifar-10-python.tar.gz"]
    (served / "cifar-10-python.tar.gz").unlink()
    check(root)


def test_a_wrong_download_leaves_nothing_behind(tmp_path: Path, served: Path) -> None:
    root = tmp_path / "root"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pooch 1.9 leaves the connection of a 404 to the collector
        assert "HTTPError: 404" in refused(root)
        gc.collect()
    (served / "cifar-10-python.tar.gz").write_bytes(ARCHIVE[:-1])
    assert md5(ARCHIVE) in refused(root)
    assert list(root.iterdir()) == []


def test_facts_need_no_data(tmp_path: Path) -> None:
    assert dataset_facts("cifar10", tmp_path / "nowhere")[:4] == (50_000, 10_000, 10, (3, 32, 32))
    assert not (tmp_path / "nowhere").exists()
