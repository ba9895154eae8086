"""The numbers that schedules are made of and asked with, and what is said of wrong ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError

# Whole numbers above this are not exact in float64, in which every formula is evaluated.
MOST = 2**53


def plain(value: Any) -> Any:
    """A NumPy scalar as Python's own number; everything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def listed(value: Any) -> Any:
    """An array as a list; everything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _length(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise PydanticCustomError("length", "Input should be a finite number >= 0")
    return int(value) if value == int(value) else value


Count = Annotated[int, BeforeValidator(plain), Field(strict=True, ge=0, le=MOST)]
PositiveCount = Annotated[int, BeforeValidator(plain), Field(strict=True, ge=1, le=MOST)]
# Taken as any sequence, kept as a tuple.
Counts = Annotated[Sequence[Count], BeforeValidator(listed), AfterValidator(tuple)]
Fraction = Annotated[float, BeforeValidator(plain), Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
# A number of steps or epochs that need not be whole (half an epoch of warm-up); whole ones stay ints.
Length = Annotated[float, PlainValidator(_length)]


def steps_of(step: Any) -> Float64:
    """``step`` as a float64 array of its own shape.

    Raises:
        SpecError: it holds something that is not a finite number >= 0.
    """
    try:
        steps = np.asarray(step, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SpecError(f"step={step!r}: a step must be a number or an array of numbers.") from None
    if steps.size and not (steps.min() >= 0 and steps.max() < math.inf):
        wrong = steps[~((steps >= 0) & (steps < math.inf))].flat[0]
        raise SpecError(f"step={wrong:g}: a step must be a finite number >= 0.")
    return steps


def lr_of(lr: Any) -> float:
    """``lr`` as a float.

    Raises:
        SpecError: it is not a finite number >= 0.
    """
    number = plain(lr)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
        raise SpecError(f"lr={lr!r}: a group's lr must be a finite number >= 0.")
    try:
        return float(number)
    except OverflowError:
        raise SpecError(f"lr={lr!r}: a group's lr must be a finite number >= 0.") from None
