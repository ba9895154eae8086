"""A folder of images: its layouts, its pixels against torchvision's, what is broken, what is read when."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, StoredImages, dataset_facts, load_dataset
from tests.support.image_folders import make_folder, noise, save_image


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "pets")


def load(folder: Path, **options: Any) -> ll.Dataset:
    return load_dataset(ll.ImageFolder(folder, **{"size": 16, **options}))


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_pixels_are_those_of_torchvision(pets: Path, fit: str) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    v2 = pytest.importorskip("torchvision.transforms.v2")
    steps = [v2.Resize(16), v2.CenterCrop(16)] if fit == "crop" else [v2.Resize((16, 16))]
    theirs = datasets.ImageFolder(str(pets), v2.Compose(steps))
    ours = load(pets, fit=fit, share=0.2)
    assert ours.class_names == tuple(theirs.classes) and ours.num_classes == 3
    by_pixels = {np.asarray(image).tobytes(): label for image, label in theirs}
    found = [
        (image.tobytes(), label)
        for x, y in ((ours.x_train, ours.y_train), (ours.x_test, ours.y_test))
        for image, label in zip(x[:], y.tolist(), strict=True)
    ]
    assert len(found) == len(theirs) == 15 and dict(found) == by_pixels


def test_padded_images_are_whole_with_black_around(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(2):
            save_image(tmp_path / name / f"{index}.png", np.full((8, 16, 3), 200, np.uint8))
    image = load(tmp_path, fit="pad").x_train[0]
    assert (image[:4] == 0).all() and (image[4:12] == 200).all() and (image[12:] == 0).all()


def test_a_seeded_share_of_each_class_is_the_test_part(pets: Path) -> None:
    data = load(pets, share=0.4)
    assert np.bincount(data.y_train).tolist() == [3, 3, 3] and np.bincount(data.y_test).tolist() == [2, 2, 2]
    assert data.digest() == load(pets, share=0.4).digest() != load(pets, share=0.4, seed=1).digest()
    least = load(pets, share=0.01)
    assert np.bincount(least.y_test).tolist() == [1, 1, 1]
    most = load(pets, share=0.99)
    assert np.bincount(most.y_train).tolist() == [1, 1, 1]


@pytest.mark.parametrize("part", ["val", "valid", "validation", "test"])
def test_folders_of_parts_are_taken_as_they_are(tmp_path: Path, part: str) -> None:
    make_folder(tmp_path / "train")
    make_folder(tmp_path / part, ("dog", "emu"), images=2)
    data = load(tmp_path)
    assert data.class_names == ("cat", "dog", "emu")
    assert data.facts[:4] == (15, 4, 3, (3, 16, 16)) and data.facts == dataset_facts(ll.ImageFolder(tmp_path, 16))
    assert data.y_test.tolist() == [1, 1, 2, 2]


def test_of_several_test_folders_one_is_chosen(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", images=2)
    make_folder(tmp_path / "val", images=1)
    make_folder(tmp_path / "test", images=3)
    assert len(load(tmp_path).y_test) == 3 and len(load(tmp_path, test_folder="test").y_test) == 9
    with pytest.raises(ll.DataError, match=r"has no folder 'tests'\. Did you mean 'test'\?"):
        load(tmp_path, test_folder="tests")


def test_what_is_read_as_needed_is_bitwise_what_is_kept(pets: Path) -> None:
    kept, stored = load(pets), load(pets, memory_bytes=0, workers=3)
    assert isinstance(stored.x_train, StoredImages)
    assert kept.digest() == stored.digest()
    assert kept.mean is not None and stored.mean is not None and kept.std is not None and stored.std is not None
    np.testing.assert_array_equal(kept.mean, stored.mean)
    np.testing.assert_array_equal(kept.std, stored.std)
    np.testing.assert_array_equal(np.asarray(kept.x_test), np.asarray(stored.x_test))
    for ours, theirs in zip(
        Batches(kept, 4, seed=3, augment=True).epoch(1), Batches(stored, 4, seed=3, augment=True).epoch(1), strict=True
    ):
        assert ours[0].tobytes() == theirs[0].tobytes() and ours[1].tobytes() == theirs[1].tobytes()


def test_kept_images_are_read_once_and_others_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    kept, stored = load(folder), load(folder, memory_bytes=0)
    for file in folder.rglob("*.*"):
        file.unlink()
    assert len(list(Batches(kept, 4).epoch(0))) == 3
    with pytest.raises(ll.DataError, match=r"pets/.* cannot be read \(FileNotFoundError.*broken='skip'"):
        list(Batches(stored, 4).epoch(0))


def test_stored_images_are_indexed_like_an_array(pets: Path) -> None:
    images = load(pets, memory_bytes=0).x_train
    whole = np.asarray(images)
    assert whole.shape == images.shape and len(images) == 12
    for place in (0, -1, slice(2, 7, 2), [3, 1], np.array([True, False] * 6), (2, 5), (slice(1, 3), ..., 0)):
        np.testing.assert_array_equal(images[place], whole[place])
    with pytest.raises(IndexError):
        images[12]


def oriented(pixels: Any, orientation: int) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def test_each_kind_of_image_becomes_rgb_of_8_bits(tmp_path: Path) -> None:
    from PIL import Image

    grey = noise(1, 6, 4)
    rgb = noise(2, 6, 4, 3)
    files = {
        "grey": (np.repeat(grey[:, :, None], 3, 2), lambda path: save_image(path, grey)),
        "rgba": (rgb, lambda path: save_image(path, np.dstack([rgb, noise(3, 6, 4)]))),
        "16 bits": (
            np.repeat(grey[:, :, None], 3, 2),
            lambda path: save_image(path, grey.astype(np.uint16) * 257),
        ),
        "palette": (
            np.asarray(Image.fromarray(rgb).quantize(8).convert("RGB")),
            lambda path: Image.fromarray(rgb).quantize(8).save(path, transparency=b"\x00\x80"),
        ),
        "turned": (np.rot90(rgb, -1), lambda path: save_image(path, rgb, exif=oriented(rgb, 6))),
        "one bit": (np.repeat(grey[:, :, None] // 128 * 255, 3, 2), lambda path: save_image(path, grey > 127)),
    }
    for name, (expected, save) in files.items():
        root = tmp_path / name
        for copy in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            (root / copy).parent.mkdir(parents=True, exist_ok=True)
            save(root / copy)
        data = load_dataset(root)
        np.testing.assert_array_equal(data.x_train[0], expected, err_msg=name)
    assert load_dataset(ll.ImageFolder(tmp_path / "grey", grey=True)).x_train[0].tobytes() == grey.tobytes()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Of 15 files one is a text, one is cut off, one is empty."""
    folder = make_folder(tmp_path / "pets")
    (folder / "cat" / "0.png").write_text("no image")
    (folder / "cat" / "1.JPG").write_bytes((folder / "cat" / "1.JPG").read_bytes()[:-200])
    (folder / "dog" / "2.png").write_bytes(b"")
    return folder


def test_broken_images_are_all_named_before_the_training(broken: Path) -> None:
    with pytest.raises(ll.DataError) as caught:
        load(broken, share=0.01)
    words = str(caught.value)
    assert "\n" not in words and "3 of 15 files" in words and "broken='skip'" in words
    assert all(name in words for name in ("cat/0.png", "cat/1.JPG", "dog/2.png"))


def test_broken_images_are_left_out_where_that_is_asked_for(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for room in (0, 1 << 30):
        data = load(broken, broken="skip", share=0.01, memory_bytes=room)
        assert np.bincount(np.concatenate([data.y_train, data.y_test])).tolist() == [3, 4, 5]
        said = capsys.readouterr().err
        assert "cat/0.png" in said and "dog/2.png" in said and "left out" in said
        assert len(list(Batches(data, 3).epoch(0))) == 3
    for file in (broken / "dog").iterdir():
        file.write_text("")
    with pytest.raises(ll.DataError, match="no training image of class 'dog' can be read"):
        load(broken, broken="skip")
    for file in broken.rglob("*.*"):
        file.write_text("")
    with pytest.raises(ll.DataError, match=r"15 of 15 files cannot be used.*and 5 more\. None is left"):
        load(broken, broken="skip")


def test_one_damaged_pixel_changes_the_digest(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    before = load(folder).digest()
    save_image(folder / "cat" / "0.png", noise(99, 20, 30, 3))
    assert load(folder).digest() != before != load(folder, size=8).digest()
    assert ll.ImageFolder(folder, size=8).load(12).facts.image_shape == (3, 12, 12)
    assert ll.ImageFolder(folder, size=8).facts(12).image_shape == (3, 12, 12)


def fifo(root: Path) -> None:
    make_folder(root)
    os.mkfifo(root / "cat" / "pipe.png")


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda root: None, {}, r"does not exist\. Check the path"),
        (lambda root: root.write_text("x"), {}, r"is no folder: give the folder"),
        (lambda root: root.mkdir(), {}, r"has no images in folders of classes"),
        (lambda root: save_image(root / "1.png", noise(0, 4, 4)), {}, r"It has 1 images that are in no folder"),
        (lambda root: make_folder(root, ("cat",)), {}, r"has one class, 'cat': a classifier needs two"),
        (lambda root: (make_folder(root) / "fox").mkdir(), {}, r"no images in 'fox': remove a folder"),
        (lambda root: make_folder(root, images=1), {}, r"class 'cat' has one image, and needs two"),
        (make_folder, {"size": None}, r"the images have 15 sizes, such as 26x20 and 30x32: give .* size=224"),
        (make_folder, {"test_folder": "val"}, r"has no folder 'train' with classes"),
        (fifo, {}, r"cat/pipe\.png \(.*a FIFO"),
        (
            lambda root: (make_folder(root / "train"), make_folder(root / "val", ("cats",))),
            {},
            r"has class 'cats', which has no training images\. Did you mean 'cat'\?",
        ),
        (
            lambda root: (make_folder(root), save_image(root / "cat" / "x.png", noise(0, 2, 300))),
            {},
            r"one side is more than 100 times the other",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, make: Any, options: Any, words: str) -> None:
    make(tmp_path / "pets")
    with pytest.raises(ll.DataError, match=words):
        load(tmp_path / "pets", **{"share": 0.01, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size must be a whole number >= 1"),
        ({"size": True}, "size must be a whole number >= 1"),
        ({"size": 1 << 15}, "must be 1 to 16384 pixels"),
        ({"share": 1.0}, r"share=1\.0: must be a number above 0 and below 1"),
        ({"share": "half"}, "share='half'"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"fit": "zoom"}, "fit='zoom': must be 'crop', 'stretch', 'pad'"),
        ({"broken": "ignore"}, "broken='ignore': must be 'raise', 'skip'"),
        ({"workers": 0}, "workers must be a whole number >= 1"),
        ({"grey": 1}, r"grey=1\): must be true or false"),
        ({"memory_bytes": None}, "memory_bytes must be a whole number"),
        ({"test_folder": "a/b"}, "must be the name of a folder beside 'train'"),
        ({"sizes": 3}, r"ImageFolder has no 'sizes'\. Did you mean 'size'\?"),
    ],
)
def test_wrong_arguments_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        ll.ImageFolder.from_dict({"folder": "pets", **options})


def test_every_way_to_name_a_folder_gives_the_same(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(pets).digest()
    monkeypatch.chdir(pets.parent)
    for data in (pets, str(pets), f"folder:{pets}", "pets", "folder:pets"):
        assert load_dataset(data, image_size=16).digest() == expected
    assert load_dataset({"folder": "pets", "size": 16}).digest() == expected
    assert dataset_facts("pets", image_size=16) == load(pets).facts


def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    make_folder(tmp_path, ("more",), images=2)
    (folder / "cat" / "more").symlink_to(tmp_path / "more")
    (folder / "cat" / "above").symlink_to(folder)
    (folder / "cat" / "itself").symlink_to(folder / "cat")
    data = load(folder)
    assert np.bincount(np.concatenate([data.y_train, data.y_test])).tolist() == [7, 5, 5]


def make_parts(root: Path, *places: str, images: int = 3) -> Path:
    for place in places:
        make_folder(root / Path(place).parent, (Path(place).name,), images)
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "dev"), ("train", "Val"), ("Train", "Test"), ("training", "testing"), ("TRAINING", "Validation")],
)
def test_names_of_parts_are_known_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    root = make_parts(tmp_path, *(f"{part}/{name}" for part in (train, test) for name in "ab"))
    (root / "notes").mkdir()
    (root / "notes" / "about.txt").write_text("no images")
    data = load(root)
    assert data.class_names == ("a", "b") and data.facts[:2] == (6, 6)
    assert load(root, test_folder=test).digest() == data.digest()
    with pytest.raises(ll.DataError, match="is the folder to train with" if train != "train" else "no folder"):
        load(root, test_folder=train if train != "train" else "Train")


def test_a_training_part_of_another_name_needs_no_test_part(tmp_path: Path) -> None:
    assert load(make_parts(tmp_path, "Train/a", "Train/b")).class_names == ("a", "b")


def test_a_test_folder_of_another_name_is_said(tmp_path: Path) -> None:
    root = make_parts(tmp_path, "train/a", "train/b", "holdout/a", "holdout/b")
    with pytest.raises(ll.DataError, match=r"images in 'holdout' beside it .*test_folder='holdout'"):
        load(root)
    assert load(root, test_folder="holdout").facts[:2] == (6, 6)
    assert load(root / "train").facts[:2] == (4, 2)


def test_a_test_part_without_images_is_as_good_as_none(tmp_path: Path) -> None:
    root = make_parts(tmp_path, "train/a", "train/b")
    (root / "dev").mkdir()
    assert load(root).facts[:2] == (4, 2)


def test_classes_may_have_names_and_folders_of_parts(tmp_path: Path) -> None:
    flat = make_parts(tmp_path / "flat", "train", "bus", "plane")
    make_parts(flat, "train/steam", "train/diesel", "bus/old", "bus/new")
    assert load(flat).class_names == ("bus", "plane", "train")
    years = make_parts(tmp_path / "years", "cat/2019", "cat/2020", "dog/2019", "dog/2020")
    (years / "circle").symlink_to(years / "circle")
    assert load(years).class_names == ("cat", "dog") and load(years).facts[:2] == (10, 2)


@pytest.mark.parametrize(
    ("places", "loose", "words"),
    [
        (("train/a", "train/b", "val/a", "val/b"), "train/preview.png", r"train: has images .* such as preview\.png"),
        (("Train/a", "Train/b"), "Train/preview.png", r"Train: has images .* such as preview\.png"),
        (("train/steam", "train/diesel", "bus", "plane"), "", r"images in 'bus', 'plane' beside it would not be used"),
        (("train/a", "train/b", "Train/a", "Train/b"), "", r"'Train' and 'train' may both be the images to train"),
        (("train/a", "train/b", "Val/a", "val/a"), "", r"'\w+' and '\w+' may both .* test_folder='(Val|val)'"),
        (("train_set/a", "train_set/b", "test_set/a", "test_set/b"), "", r"'test_set' has folders 'a', 'b', as 'tra"),
        (("val/a", "val/b", "test/a", "test/b"), "", r"classes or parts\? 'test' has folders 'a', 'b', as 'val'"),
        (("a", "b", "test/a", "test/b"), "", r"'test' has folders 'a', 'b', as the folder itself has"),
    ],
)
def test_parts_that_may_be_classes_are_refused(tmp_path: Path, places: Any, loose: str, words: str) -> None:
    make_parts(tmp_path, *places)
    if loose:
        save_image(tmp_path / loose, noise(0, 20, 20, 3))
    with pytest.raises(ll.DataError, match=words):
        load(tmp_path)
