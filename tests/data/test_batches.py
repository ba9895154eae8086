"""Batches: every pixel against brute force in float64, and the purity of order and augmentation."""

import hashlib
import tracemalloc
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Batches, Dataset
from layered_lr.data.random_draws import draw_crops, draw_order
from layered_lr.errors import SpecError

ORDER = [9, 7, 2, 0, 4, 3, 5, 6, 1, 8]
CROPS: list[list[Any]] = [
    [5, 1, 2, 3, 1, 0, 6, 5, 6, 1],
    [8, 1, 5, 3, 5, 3, 5, 7, 1, 5],
    [False, True, False, False, True, True, True, False, False, False],
]


def dataset(size: int = 23, shape: tuple[int, int, int] = (5, 7, 3), test_size: int = 10, **options: Any) -> Dataset:
    """Random uint8 images without a black pixel; the label is the index of the image."""
    x = np.random.default_rng(4).integers(1, 256, (size + test_size, *shape), dtype=np.uint8)
    return Dataset("small", x[:size], np.arange(size), x[size:], np.arange(test_size), **options)


def float_dataset() -> Dataset:
    x = np.random.default_rng(5).normal(size=(33, 2, 6, 4)).astype(np.float32)
    return Dataset("floats", x[:23], np.arange(23), x[23:], np.arange(10))


def normalised(pixels: Any, data: Dataset) -> Any:
    """Of NHWC or HWC pixels, in float64, channels first."""
    x = (pixels.astype(np.float64) / 255 - data.mean) / data.std
    return np.moveaxis(x, -1, -3)


def brute_force_crop(image: Any, top: int, left: int, flip: bool) -> Any:
    """Of an HWC image."""
    height, width, _ = image.shape
    window = np.pad(image, ((4, 4), (4, 4), (0, 0)))[top : top + height, left : left + width]
    return np.fliplr(window) if flip else window


def test_without_augmentation_a_batch_is_the_normalised_images() -> None:
    data = dataset()
    seen = []
    for images, labels in Batches(data, 5, seed=3).epoch(2):
        assert images.dtype == np.float32 and images.shape == (5, 3, 5, 7) and images.flags.c_contiguous
        assert labels.dtype == np.int64 and labels.shape == (5,)
        # float32 rounding of values up to about 2
        np.testing.assert_allclose(images, normalised(data.x_train[labels], data), rtol=0, atol=2e-7)
        seen += labels.tolist()
    assert len(seen) == len(set(seen)) == 20  # the last partial batch is dropped, nothing comes twice


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 1), (32, 32, 3), (9, 2, 4)])
def test_augmented_images_are_the_crops_that_were_drawn(shape: tuple[int, int, int]) -> None:
    data = dataset(shape=shape)
    crops = draw_crops(7, 1, 23, padding=4)
    for images, labels in Batches(data, 4, seed=7, augment=True).epoch(1):
        for image, i in zip(images, labels.tolist(), strict=True):
            expected = brute_force_crop(data.x_train[i], crops.top[i], crops.left[i], crops.flip[i])
            np.testing.assert_allclose(image, normalised(expected, data), rtol=0, atol=5e-7)


def test_float_images_are_cropped_and_flipped_as_they_are() -> None:
    data = float_dataset()
    plain = {label: image for x, y in Batches(data, 1).epoch(0) for image, label in zip(x, y.tolist(), strict=True)}
    assert all(np.array_equal(image, data.x_train[label]) for label, image in plain.items()) and len(plain) == 23
    crops = draw_crops(0, 0, 23, padding=4)
    for images, labels in Batches(data, 4, augment=True).epoch(0):
        assert images.flags.c_contiguous and images.dtype == np.float32
        for image, i in zip(images, labels.tolist(), strict=True):
            hwc = brute_force_crop(data.x_train[i].transpose(1, 2, 0), crops.top[i], crops.left[i], crops.flip[i])
            np.testing.assert_array_equal(image, hwc.transpose(2, 0, 1))


def test_crops_and_flips_seen_in_the_pixels_are_uniform() -> None:
    """Which crop it was is found from the images alone, knowing nothing of the draws."""
    data = dataset(size=1, shape=(8, 8, 1), test_size=1)
    choices = [(top, left, flip) for top in range(9) for left in range(9) for flip in (False, True)]
    expected = np.stack([normalised(brute_force_crop(data.x_train[0], *choice), data) for choice in choices])
    batches = Batches(data, 1, seed=11, augment=True)
    seen: Counter[tuple[int, int, bool]] = Counter()
    for epoch in range(1620):  # ten of each expected
        (images, _), *_ = batches.epoch(epoch)
        (match,) = np.flatnonzero(np.abs(expected - images).max(axis=(1, 2, 3)) < 1e-5)
        seen[choices[match]] += 1
    chi_square = sum((seen[choice] - 10) ** 2 / 10 for choice in choices)
    assert chi_square < 221  # 161 degrees of freedom: exceeded once in 1,000 seeds


def test_a_samples_augmentation_depends_on_neither_batch_size_nor_position() -> None:
    data = dataset()

    def by_label(batch_size: int) -> dict[int, Any]:
        batches = Batches(data, batch_size, seed=5, augment=True)
        return {int(label): image for x, y in batches.epoch(4) for image, label in zip(x, y, strict=True)}

    by_size = [by_label(batch_size) for batch_size in (1, 5, 8, 23)]
    for other in by_size[1:]:
        assert len(other) >= 16
        assert all(np.array_equal(by_size[0][label], image) for label, image in other.items())


def test_order_depends_on_seed_and_epoch_but_not_on_augmentation() -> None:
    def order(seed: int, epoch: int, augment: bool = False) -> list[int]:
        return [int(label) for _, y in Batches(dataset(), 1, seed, augment).epoch(epoch) for label in y]

    assert order(0, 0) == order(0, 0) == order(0, 0, augment=True) == draw_order(0, 0, 23).tolist()
    assert [int(label) for _, y in Batches(dataset(), 5).epoch(0) for label in y] == order(0, 0)[:20]
    assert sorted(order(0, 0)) == sorted(order(0, 1)) == list(range(23))
    orders = {tuple(order(seed, epoch)) for seed in (0, 1, 2**32, 2**32 + 1, 2**64) for epoch in range(3)}
    assert len(orders) == 15


def test_draws_stay_the_same_across_versions() -> None:
    """A checkpoint of today must meet the same batches later; these values were written down once."""
    assert draw_order(0, 0, 10).tolist() == ORDER
    crops = draw_crops(0, 0, 10, padding=4)
    assert [list(values.tolist()) for values in crops] == CROPS
    assert draw_crops(0, 0, 5, padding=4).top.tolist() == CROPS[0][:5]


@pytest.mark.parametrize("augment", [False, True])
def test_an_epoch_goes_on_where_it_was_left(augment: bool) -> None:
    batches = Batches(dataset(), 4, augment=augment)
    assert batches.steps_per_epoch == 5
    whole = list(batches.epoch(6))
    rest = list(batches.epoch(6, start=3))
    assert len(whole) == 5 and len(rest) == 2
    for (images, labels), (again, labels_again) in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    assert list(batches.epoch(6, start=5)) == []


@pytest.mark.parametrize("data", [dataset(), float_dataset()], ids=["uint8", "float"])
@pytest.mark.parametrize("augment", [False, True])
def test_every_array_is_new(data: Dataset, augment: bool) -> None:
    batches = Batches(data, 5, augment=augment)
    tested = [(images, labels) for images, labels, _ in batches.test()]
    made: list[Any] = [array for batch in [*batches.epoch(0), *batches.epoch(0), *tested] for array in batch]
    sources = [data.x_train, data.y_train, data.x_test, data.y_test]
    for i, array in enumerate(made):
        assert array.flags.writeable
        assert not any(np.may_share_memory(array, other) for other in made[:i] + sources)


@pytest.mark.parametrize("data", [dataset(), float_dataset()], ids=["uint8", "float"])
@pytest.mark.parametrize(("batch_size", "counts"), [(4, [4, 4, 2]), (5, [5, 5]), (23, [10]), (1, [1] * 10)])
def test_the_test_set_comes_in_order_in_one_batch_shape(data: Dataset, batch_size: int, counts: list[int]) -> None:
    batches = list(Batches(data, batch_size, augment=True).test())
    assert [count for _, _, count in batches] == counts
    _, channels, height, width = batches[0][0].shape
    assert all(x.shape == (batch_size, channels, height, width) and len(y) == batch_size for x, y, _ in batches)
    real = np.concatenate([images[:count] for images, _, count in batches])
    expected = data.x_test if data.mean is None else normalised(data.x_test, data)
    np.testing.assert_allclose(real, expected, rtol=0, atol=2e-7)
    assert np.concatenate([labels[:count] for _, labels, count in batches]).tolist() == list(range(10))
    padding = [label for _, labels, count in batches for label in labels[count:].tolist()]
    assert padding == [i % 10 for i in range(len(padding))]


SHAPES = [(32, 32, 3), (5, 7, 3), (3, 4, 3), (1, 1, 1), (4, 4, 1), (9, 3, 2), (2, 3, 4), (2, 2, 6)]


def striped(shape: tuple[int, int, int]) -> Dataset:
    """Pixels that no generator of random numbers draws."""
    pixels = np.arange(33 * int(np.prod(shape)))
    x = ((pixels * 7919 + pixels // 13) % 256).astype(np.uint8).reshape(33, *shape)
    return Dataset("striped", x[:23], np.arange(23), x[23:], np.arange(10))


def test_pixels_stay_the_same_across_versions() -> None:
    """A run that is resumed must meet the same batches, to the last bit; this digest was written down once."""
    digest = hashlib.blake2b(digest_size=8)
    for shape in SHAPES:
        for augment in (False, True):
            for images, labels in Batches(striped(shape), 5, seed=3, augment=augment).epoch(1):
                digest.update(images.tobytes() + labels.tobytes())
    assert digest.hexdigest() == "c850a1f6ee5d6efc"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("augment", [False, True])
def test_channels_last_changes_where_pixels_lie_and_nothing_else(shape: tuple[int, int, int], augment: bool) -> None:
    batches = Batches(striped(shape), 4, seed=5, augment=augment)
    pairs = [*zip(batches.updates(2), islice(batches.updates(2, channels_last=True), 7), strict=False)]
    pairs += zip(batches.test(), batches.test(channels_last=True), strict=True)
    assert len(pairs) == 7 + 3
    height, width, channels = shape
    made: list[Any] = []
    for (images, labels, count), (again, labels_again, count_again) in pairs:
        assert again.dtype == np.float32 and again.shape == images.shape and count == count_again
        np.testing.assert_array_equal(images.view(np.uint32), again.copy().view(np.uint32))
        np.testing.assert_array_equal(labels, labels_again)
        assert not any(np.may_share_memory(again, other) for other in made)
        made.append(again)
    if channels <= 4 and height * width * channels % 2 == 0:
        assert all(images.transpose(0, 2, 3, 1).flags.c_contiguous for images in made)


@pytest.mark.parametrize("data", [dataset(), float_dataset()], ids=["uint8", "float"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_updates_are_the_batches_of_the_epochs_put_together(data: Dataset, channels_last: bool) -> None:
    batches = Batches(data, 4, seed=2, augment=True)  # 5 batches an epoch: updates of 2, 2 and 1
    singly = [batch for epoch in range(3) for batch in batches.epoch(epoch)]
    places = [range(5 * epoch + first, 5 * epoch + min(first + 2, 5)) for epoch in range(3) for first in (0, 2, 4)]
    for start in (0, 1, 3, 5):
        for (images, labels, parts), place in zip(batches.updates(2, start, channels_last), places[start:]):  # noqa: B905
            assert parts == len(place)
            np.testing.assert_array_equal(images, np.concatenate([singly[number][0] for number in place]))
            np.testing.assert_array_equal(labels, np.concatenate([singly[number][1] for number in place]))


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_of_many_epochs_hold_no_more_memory_than_those_of_one(channels_last: bool) -> None:
    x = np.zeros((2000, 16, 16, 3), np.uint8)
    x[::2] = 200
    data = Dataset("flat", x, np.zeros(2000, np.int64), x[:10], np.zeros(10, np.int64))
    updates = Batches(data, 50, augment=True).updates(1, channels_last=channels_last)
    tracemalloc.start()
    try:
        for _ in islice(updates, 40):
            pass
        after_one, peak_of_one = tracemalloc.get_traced_memory()
        for _ in islice(updates, 400):
            pass
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    batch = 50 * 16 * 16 * 3 * 4
    assert after - after_one < 10_000 and peak - peak_of_one < batch
    assert peak_of_one < x.nbytes * 4 / 2  # never the whole data set as float32; the tables of pairs are 1.5 MiB


def test_augmentation_follows_the_data_set_unless_told_otherwise() -> None:
    assert Batches(dataset(augment=True), 2).augment is True
    assert Batches(dataset(), 2).augment is False
    assert Batches(dataset(augment=True), 2, augment=False).augment is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 24}, "batch_size=24 is larger than the training set of data 'small', which has 23 images"),
        ({"batch_size": 0}, "batch_size=0: batch_size must be a whole number >= 1"),
        ({"batch_size": 2.0}, "batch_size=2.0: .* whole number"),
        ({"batch_size": True}, "batch_size=True: .* whole number"),
        ({"batch_size": "8"}, "batch_size='8': .* whole number"),
        ({"batch_size": 2, "seed": -1}, "seed=-1: seed must be a whole number >= 0"),
        ({"batch_size": 2, "seed": None}, "seed=None"),
        ({"batch_size": 2, "augment": 1}, "augment=1: must be True, False"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Batches(dataset(), **arguments)


def test_a_wrong_position_is_refused_at_once() -> None:
    four: Any = np.int64(4)  # NumPy's whole numbers are whole numbers
    batches = Batches(dataset(), four)
    with pytest.raises(SpecError, match="epoch=-1"):
        batches.epoch(-1)
    with pytest.raises(SpecError, match="start=6: must be 0 to 5, the number of batches"):
        batches.epoch(0, start=6)
