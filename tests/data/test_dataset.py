"""Dataset: what it takes, what it works out, and what it says of arrays it cannot take."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layered_lr.data import Dataset
from layered_lr.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    """Six training and four test images of 5x7 with 3 channels, uint8 NHWC, some arrays replaced."""
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (4, 5, 7, 3), dtype=np.uint8),
        "y_test": np.array([0, 1, 2, 4]),
        **changes,
    }


def test_uint8_images_get_the_mean_and_deviation_of_the_training_images() -> None:
    given = arrays()
    data = Dataset("small", **given)
    pixels = given["x_train"].astype(np.float64) / 255
    assert data.mean is not None and data.std is not None
    assert data.mean.dtype == data.std.dtype == np.float32
    np.testing.assert_array_equal(data.mean, pixels.mean(axis=(0, 1, 2)).astype(np.float32))
    np.testing.assert_array_equal(data.std, pixels.std(axis=(0, 1, 2)).astype(np.float32))
    assert data.num_classes == 5  # a gap in the labels, and the largest one only in the test part
    assert data.facts == (6, 4, 5, (3, 5, 7), ("classes", ()))
    assert data.augment is False


def test_statistics_are_right_beyond_one_chunk_of_pixels() -> None:
    x = np.random.default_rng(2).integers(0, 256, (40, 50, 60, 2), dtype=np.uint8)
    x[..., 1] //= 3
    data = Dataset("large", x, np.zeros(40, int), x[:1], np.zeros(1, int))
    assert data.mean is not None and data.std is not None
    np.testing.assert_allclose(data.mean, (x / 255).mean(axis=(0, 1, 2)), rtol=1e-7)  # float32 holds 6e-8
    np.testing.assert_allclose(data.std, (x / 255).std(axis=(0, 1, 2)), rtol=1e-7)


def test_a_constant_channel_has_deviation_one() -> None:
    x = arrays()["x_train"].copy()
    x[..., 1] = 77
    std = Dataset("flat", **arrays(x_train=x)).std
    assert std is not None and std[1] == 1 and 0 < std[0] < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_floats_of_any_width_become_float32_and_stay_as_they_are(dtype: Any) -> None:
    x = np.random.default_rng(3).normal(size=(6, 2, 5, 7)).astype(dtype)
    data = Dataset("floats", **arrays(x_train=x, x_test=x[:4]))
    assert data.x_train.dtype == np.dtype("=f4") and data.x_train.dtype.isnative
    np.testing.assert_array_equal(data.x_train, x.astype(np.float32))
    assert data.mean is None and data.std is None
    assert data.facts.image_shape == (2, 5, 7)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64, ">i2"])
def test_integer_labels_become_int64(dtype: Any) -> None:
    data = Dataset("labels", **arrays(y_train=np.array([0, 1, 2, 0, 1, 2], dtype), y_test=[0, 0, 1, 1]))
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.y_train.tolist() == [0, 1, 2, 0, 1, 2] and data.num_classes == 3


def test_there_are_at_least_two_classes() -> None:
    assert Dataset("one", **arrays(y_train=[0] * 6, y_test=[0] * 4)).num_classes == 2


def test_arrays_are_read_only_and_the_users_own_are_not() -> None:
    given = arrays()
    data = Dataset("small", **given)
    with pytest.raises(ValueError, match="read-only"):
        data.x_train[0] = 0
    given["x_train"][0, 0, 0, 0] = 1
    assert np.shares_memory(data.x_train, given["x_train"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_replace_checks_again() -> None:
    data = Dataset("small", **arrays())
    assert dataclasses.replace(data, augment=True).augment is True
    with pytest.raises(DataError, match="6 images, but y_train has 2 labels"):
        dataclasses.replace(data, y_train=np.array([0, 1]))


FLOATS = np.zeros((6, 3, 5, 7), np.float32)
NOT_FINITE = np.stack([FLOATS[0]] * 4 + [np.full((3, 5, 7), np.nan, np.float32)] * 2)
SQUARE = np.zeros((6, 8, 8, 3), np.uint8)

WRONG = {
    "int images": ({"x_train": np.zeros((6, 5, 7, 3), np.int64)}, "uint8 NHWC or float NCHW.*astype.*int64 of shape"),
    "bool images": ({"x_train": np.zeros((6, 5, 7, 3), bool)}, "uint8 NHWC or float NCHW.*bool of shape"),
    "complex images": ({"x_test": np.zeros((4, 5, 7, 3), complex)}, "x_test must be images.*complex128"),
    "text images": ({"x_test": np.full((4, 5, 7, 3), "a")}, "x_test must be images.*<U1"),
    "dates": ({"x_test": np.zeros((4, 5, 7, 3), "M8[s]")}, "x_test must be images.*datetime64"),
    "records": ({"x_test": np.zeros(4, [("a", "u1")])}, "x_test must be images"),
    "objects": ({"x_train": np.full((6, 5, 7, 3), None)}, "x_train holds Python objects"),
    "ragged": ({"x_train": [[1, 2], [3]]}, "x_train cannot become a NumPy array .ValueError"),
    "no array": ({"x_train": None}, "x_train holds Python objects"),
    "no channel": (
        {"x_train": np.zeros((6, 5, 7), np.uint8)},
        r"4 axes.*channel axis of 1.*uint8 of shape \(6, 5, 7\)",
    ),
    "no train": ({"x_train": np.zeros((0, 5, 7, 3), np.uint8), "y_train": []}, "x_train is empty"),
    "no test": ({"x_test": np.zeros((0, 5, 7, 3), np.uint8)}, "x_test is empty"),
    "no pixel": ({"x_test": np.zeros((4, 0, 7, 3), np.uint8)}, "x_test is empty"),
    "no label": ({"y_test": np.zeros(0, int)}, "y_test is empty"),
    "NaN": ({"x_train": NOT_FINITE}, "x_train has values that are NaN.* in 2 of 6 images, the first at index 4"),
    "too large": ({"x_train": np.full((6, 3, 5, 7), 1e39)}, "too large for float32 in 6 of 6"),
    "uint8 NCHW": ({"x_train": SQUARE.transpose(0, 3, 1, 2)}, r"looks like NCHW.*transpose\(0, 2, 3, 1\)"),
    "float NHWC": ({"x_train": SQUARE.astype(float)}, r"looks like NHWC.*transpose\(0, 3, 1, 2\)"),
    "oblong uint8 NCHW": (
        {"x_train": np.zeros((6, 3, 8, 10), np.uint8)},
        r"looks like NCHW.*transpose\(0, 2, 3, 1\)",
    ),
    "oblong float NHWC": ({"x_train": np.zeros((6, 8, 10, 3))}, r"looks like NHWC.*transpose\(0, 3, 1, 2\)"),
    "kinds": ({"x_train": FLOATS}, "x_train is float32, but x_test is uint8"),
    "sizes": ({"x_test": np.zeros((4, 7, 5, 3), np.uint8)}, r"\(3, 5, 7\), but x_test has images of \(3, 7, 5\)"),
    "channels": ({"x_test": np.zeros((4, 5, 7, 1), np.uint8)}, r"\(3, 5, 7\), but x_test has images of \(1, 5, 7\)"),
    "lengths": ({"y_test": [0, 1, 2]}, "x_test has 4 images, but y_test has 3 labels"),
    "float labels": ({"y_train": np.zeros(6)}, "y_train has 1 value for each image .float64., but y_test has a class"),
    "bool labels": ({"y_train": np.zeros(6, bool)}, "y_train must be class numbers.*bool"),
    "texts": ({"y_train": list("abcabc")}, r"y_train holds texts.* np.unique\(labels, return_inverse=True\)"),
    "text objects": ({"y_train": np.array(list("abcabc"), object)}, "y_train holds texts"),
    "a text and a number": ({"y_train": np.array(["a", 2, 3, 4, 5, 6], object)}, "y_train holds Python objects"),
    "column": ({"y_train": np.full((6, 1), 2)}, r"y_train must have 1 axis.*\(6, 1\)"),
    "scalar": ({"y_train": 3}, r"y_train must have 1 axis.*\(\)"),
    "negative": ({"y_test": [0, 1, -1, 2]}, r"y_test\[2\] is -1: labels are class numbers from 0"),
    "huge": ({"y_test": np.array([0, 2**64 - 1, 1, 2], np.uint64)}, r"y_test\[1\] is 18446744073709551615"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_named_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Dataset("mine", **arrays(**changes))
    assert str(caught.value).startswith("data 'mine': ")
    assert "\n" not in str(caught.value)


def test_the_advice_for_a_tensor_is_a_method_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(SQUARE)
    for wrong in (images.permute(0, 3, 1, 2).contiguous(), images.float()):
        with pytest.raises(DataError, match=r"use (x\.permute\([0-9, ]+\))\.") as caught:
            Dataset("mine", **arrays(x_train=wrong, x_test=wrong[:4]))
        advice = str(caught.value).partition("use ")[2].partition(". ")[0]
        right = eval(advice, {"x": wrong})
        assert Dataset("mine", **arrays(x_train=right, x_test=right[:4])).facts.image_shape == (3, 8, 8)


def test_only_square_images_of_one_channel_are_suspected_of_the_other_layout() -> None:
    signals = np.zeros((6, 1, 100, 12), np.uint8)  # one row of 100 pixels with 12 channels
    assert Dataset("signals", **arrays(x_train=signals, x_test=signals[:4])).facts.image_shape == (12, 1, 100)


def test_class_names_say_how_many_classes_there_are() -> None:
    data = Dataset("pets", **arrays(), class_names=["cat", "dog", "emu", "fox", "gnu", "hen"])
    assert data.class_names == ("cat", "dog", "emu", "fox", "gnu", "hen")
    assert data.num_classes == data.facts.num_classes == 6  # no image of a hen
    assert data.digest() == Dataset("pets", **arrays()).digest()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("abcde", r"class_names='abcde': must be a list of names"),
        (["a"], r"class_names has 1 names: a classifier needs two classes"),
        (list("abcd"), r"class_names has 4 names, but the largest label is 4: give 5 names"),
        (list("abcda"), r"class_names has 'a': each class needs a name of its own"),
        ([1, 2, 3, 4, 5], r"class_names has 1: each class needs a name"),
        (["a", "b", "", "d", "e"], r"class_names has '': each class"),
        ({"a": 1}, r"class_names=\{'a': 1\}: must be a list"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(names: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Dataset("pets", **arrays(), class_names=names)


def test_arrays_mapped_from_files_stay_on_the_disk(tmp_path: Path) -> None:
    given = arrays()
    for name, array in given.items():
        np.save(tmp_path / f"{name}.npy", array)
    files = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in given}
    mapped = Dataset("mapped", **files)
    assert np.shares_memory(mapped.x_train, files["x_train"])
    assert mapped.digest() == Dataset("in memory", **given).digest()
