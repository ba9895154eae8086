"""Checks and conversions of images and labels; each error says in one line what is wrong and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from layered_lr.arrays import Array, Int64
from layered_lr.errors import DataError
from layered_lr.files import describe_error

# A classifier has one output for each class up to the largest label. A label above this limit is surely not a class.
MAX_CLASSES = 1_000_000

_CHECKED_TOGETHER = 1024  # images; of an array that is mapped from a file no more are in memory


def as_images(name: str, value: object, *, axes: int = 4, swap: str | None = None) -> Array:
    """Check images and convert them to the dtype that batches are made from.

    Args:
        name: The name of the array for errors, e.g. ``"x_train"``.
        value: uint8 NHWC in 0..255, or float (of any width) NCHW, finite, already preprocessed.
        axes: How many axes the user's own array has: 3 where ``value`` is one image to which the first axis was added.
        swap: The method by which the user's own array gets its axes in another order; None is that of ``value``.

    Returns:
        uint8 NHWC or float32 NCHW, C-contiguous, read-only; a view of ``value`` if no copy is needed.

    Raises:
        DataError: Another dtype or number of axes, no images or no pixels, NaN or infinite values, or a
            shape that can only be the other layout.
    """
    array = as_array(name, value)
    received = f"Received {array.dtype} of shape {array.shape}."
    if array.dtype.kind in "iub" and array.dtype != np.uint8:
        raise DataError(
            f"{name} must be uint8 NHWC or float NCHW: convert pixels in 0..255 with .astype('uint8'). {received}"
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(f"{name} must be images, uint8 NHWC or float NCHW. {received}")
    if array.ndim != 4:
        raise DataError(
            f"{name} must have 4 axes, uint8 NHWC or float NCHW; grey images need a channel axis of 1. {received}"
        )
    if array.size == 0:
        raise DataError(f"{name} is empty: at least one image of one pixel is needed. {received}")
    _check_layout(name, array, received, swap or swap_of(value), axes)
    if array.dtype == np.uint8:
        return read_only(array)
    with np.errstate(over="ignore"):  # a float64 that float32 cannot hold becomes infinite, which is refused below
        array = array.astype(np.float32, copy=False)
    finite = np.concatenate(
        [
            np.isfinite(array[start : start + _CHECKED_TOGETHER]).all(axis=(1, 2, 3))
            for start in range(0, len(array), _CHECKED_TOGETHER)
        ]
    )
    if not finite.all():
        raise DataError(
            f"{name} has values that are NaN, infinite or too large for float32 in {np.count_nonzero(~finite)} of "
            f"{len(array)} images, the first at index {int(np.argmin(finite))}: repair or leave out those images."
        )
    return read_only(array)


def as_labels(name: str, value: object) -> Int64:
    """Check labels and convert them to int64.

    Args:
        name: The name of the array for errors, e.g. ``"y_train"``.
        value: Class numbers from 0, 1-D, of any integer dtype. A class may have no images.

    Returns:
        int64, read-only; a view of ``value`` if no copy is needed.

    Raises:
        DataError: Another dtype or number of axes, no labels, or a label outside 0..999,999.
    """
    array = as_array(name, value)
    received = f"Received {array.dtype} of shape {array.shape}."
    if array.dtype.kind in "SU":
        raise DataError(
            f"{name} holds texts, and must be class numbers: names, numbers = np.unique(labels, return_inverse=True) "
            f"gives both, of the labels of all parts together. {received}"
        )
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{name} must be class numbers of an integer dtype, floats of any shape, or masks of integers; convert "
            f"with .astype('int64') or .astype('float32'). {received}"
        )
    if array.ndim != 1:
        raise DataError(
            f"{name} must have 1 axis, with one class number for each image: take y[:, 0] of a column, or y.argmax(1) "
            f"of one-hot rows. {received}"
        )
    if array.size == 0:
        raise DataError(f"{name} is empty: at least one label is needed.")
    for index in (int(array.argmin()), int(array.argmax())):
        if not 0 <= int(array[index]) < MAX_CLASSES:
            raise DataError(
                f"{name}[{index}] is {int(array[index])}: labels are class numbers from 0 to {MAX_CLASSES - 1}."
            )
    return read_only(array.astype(np.int64, copy=False))


def as_array(name: str, value: object) -> Array:
    """Make an array of numbers of what was given.

    Args:
        name: The name of the array for errors.
        value: An array, a tensor, a list.

    Raises:
        DataError: It cannot become one.
    """
    try:
        array: Array = np.asarray(widened(value))
    except Exception as error:  # whatever a foreign __array__ raises: a tensor on a GPU, a ragged list, …
        raise DataError(f"{name} cannot become a NumPy array ({describe_error(error)}): give numbers.") from None
    if array.dtype.hasobject:
        if array.dtype.kind in "OT" and array.size and all(isinstance(each, str) for each in array.flat):
            return array.astype(np.str_)
        raise DataError(f"{name} holds Python objects, not numbers: give an array of one numeric dtype.")
    return array


def widened(value: Any) -> Any:
    """An array or a tensor of bfloat16 as float32, which holds its numbers exactly; anything else as it is."""
    name = str(getattr(value, "dtype", ""))
    if name == "bfloat16":  # of ml_dtypes, which NumPy takes for no floats
        return np.asarray(value).astype(np.float32)
    return value.float() if name in ("torch.bfloat16", "oneflow.bfloat16") else value


def swap_of(value: object) -> str:
    """The method that gives something's axes in another order: ``permute`` of a tensor of torch."""
    return "permute" if hasattr(value, "permute") else "transpose"


def _check_layout(name: str, array: Array, received: str, swap: str, axes: int) -> None:
    """Refuse images of 3 channels, and square ones of 1, that clearly have the layout of the other dtype."""
    _, a, b, c = array.shape
    if array.dtype == np.uint8 and min(b, c) > 4 and (a == 3 or (a == 1 and b == c)):
        order = (0, 2, 3, 1) if axes == 4 else (1, 2, 0)
        raise DataError(f"{name} looks like NCHW, but uint8 images are NHWC: use x.{swap}{order}. {received}")
    if array.dtype != np.uint8 and min(a, b) > 4 and (c == 3 or (c == 1 and a == b)):
        order = (0, 3, 1, 2) if axes == 4 else (2, 0, 1)
        raise DataError(f"{name} looks like NHWC, but float images are NCHW: use x.{swap}{order}. {received}")


def read_only(array: Array) -> Array:
    """Return a C-contiguous view that cannot be written, of a copy where the array is laid out otherwise."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
