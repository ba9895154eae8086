"""Names for kinds of arrays, used all over the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""

Float32: TypeAlias = NDArray[np.float32]
"""An array of float32, such as images that a model takes."""

Float64: TypeAlias = NDArray[np.float64]
"""An array of float64, such as losses or rates."""

Floats: TypeAlias = NDArray[np.floating[Any]]
"""An array of floats of any width, such as a model's output."""

Int64: TypeAlias = NDArray[np.int64]
"""An array of int64, such as labels."""

Targets: TypeAlias = Int64 | Float64 | Float32
"""What a batch of N images is to be: class numbers, shape (N,); the share of each class, float64 (N, classes); values,
floats of shape (N, ...); or masks, int64 of shape (N, H, W)."""

Arrays: TypeAlias = Mapping[str, Array]
"""Arrays by name."""

Weights: TypeAlias = Arrays
"""Every parameter and buffer of a model, by name."""

Slots: TypeAlias = Mapping[str, Arrays]
"""What an optimizer keeps for each parameter: by the parameter's name, then by torch's name of the slot."""

BFLOAT16: Final = "bfloat16"
"""The name of the dtype that ml_dtypes adds to NumPy; its ``kind`` is that of raw bytes."""

FLOAT32_MAX: Final = float.fromhex("0x1.fffffep+127")
"""The largest finite float32. ``numpy.finfo`` warns, once, where a processor has been told to flush subnormals."""

FLOAT32_TINY: Final = 2.0**-126
"""The smallest float32 in full precision."""


def kind_of(array: Array) -> str:
    """Return ``array.dtype.kind``, which is ``"f"`` for every array of floats, bfloat16 too.

    Example:
        >>> kind_of(np.zeros(2))
        'f'
    """
    return "f" if array.dtype.name == BFLOAT16 else array.dtype.kind


def find_bfloat16() -> np.dtype[Any]:
    """Return NumPy's dtype of bfloat16, by which it also knows that name from now on."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class DividedArray:
    """An array of which each of several processes holds a part. It stands in a state where an ``Array`` would.

    Whoever gathers one, or asks whether it is finite, waits for the other processes: all of them have to ask for the
    same arrays in the same order. Products and quotients with a number are made part by part.

    Args:
        part: What this process holds: a copy of its own.
        shape: Of the whole array.
        layout: Equal for arrays that are divided in the same way.
        gather: Makes the whole array of all processes' parts.
        agree: Whether all processes say yes.

    Attributes:
        is_written: Whether this process has gathered it for the file that is being written.
    """

    __array_ufunc__ = None  # NumPy leaves arithmetic with it to this class

    def __init__(
        self,
        part: Array,
        shape: tuple[int, ...],
        layout: object,
        gather: Callable[[Array], Array],
        agree: Callable[[bool], bool],
    ) -> None:
        self.part, self.shape, self.layout = part, shape, layout
        self.dtype, self.ndim = part.dtype, len(shape)
        self.is_written = False
        self._gather, self._agree = gather, agree

    def gather(self) -> Array:
        """Return the whole array."""
        return self._gather(self.part)

    def is_finite(self) -> bool:
        """Whether no process's part has NaN or infinity."""
        return self._agree(bool(np.isfinite(self.part).all()))

    def astype(self, dtype: np.dtype[Any]) -> DividedArray:
        """Return it in another dtype."""
        return self._with(self.part.astype(dtype))

    def __mul__(self, factor: float) -> DividedArray:
        return self._with(self.part * factor)

    def __truediv__(self, divisor: float) -> DividedArray:
        return self._with(self.part / divisor)

    def __array__(self, *given: object, **named: object) -> Array:
        raise TypeError("this array is divided among processes: gather it first, in all of them.")

    def _with(self, part: Array) -> DividedArray:
        return DividedArray(part, self.shape, self.layout, self._gather, self._agree)


COUNTS: Final = ("step", "mu_product", "eta", "mu")
"""Slots that are a single number. In a state they are float64, whatever dtype the framework has."""


def fits_parameter(slot: str, shape: tuple[int, ...], parameter: tuple[int, ...]) -> bool:
    """Whether a slot can belong to a parameter: it has the parameter's shape, or 1 in the place of some dimensions.

    Args:
        slot: Its name.
        shape: The slot's.
        parameter: The parameter's.
    """
    if shape == () or slot in COUNTS:
        return shape == ()
    return len(shape) == len(parameter) and all(one in (1, size) for one, size in zip(shape, parameter, strict=True))
