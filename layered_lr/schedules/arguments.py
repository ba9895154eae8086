"""The kinds of numbers that schedules take, and the errors for wrong ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scalars import read_number, unwrap_scalar

# Every formula is evaluated in float64. Whole numbers above this limit are not exact there.
MOST = 2**53


def to_list(value: Any) -> Any:
    """Turn an array into a list; return everything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def _check_length(value: object) -> float:
    number = unwrap_scalar(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= MOST:
        raise PydanticCustomError("length", "Input should be a finite number >= 0")
    return int(number) if number == int(number) else number


Count = Annotated[int, BeforeValidator(unwrap_scalar), Field(strict=True, ge=0, le=MOST)]
PositiveCount = Annotated[int, BeforeValidator(unwrap_scalar), Field(strict=True, ge=1, le=MOST)]
# The user may give any sequence; the schedule keeps a tuple.
Counts = Annotated[Sequence[Count], BeforeValidator(to_list), AfterValidator(tuple)]
Fraction = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
# A number of steps or epochs that need not be whole (half an epoch of warm-up). Whole numbers stay ints.
Length = Annotated[float, PlainValidator(_check_length)]


def check_steps(step: ArrayLike) -> Float64:
    """Return ``step`` as a float64 array of the same shape.

    Raises:
        SpecError: One of the steps is not a finite number >= 0.
    """
    try:
        steps = np.asarray(step, dtype=np.float64)
    except Exception:  # an object of the user may raise anything
        raise SpecError(f"step={shown(step)}: a step must be a number or an array of numbers.") from None
    if steps.size and not (steps.min() >= 0 and steps.max() < math.inf):
        wrong = steps[~((steps >= 0) & (steps < math.inf))].flat[0]
        raise SpecError(f"step={wrong:g}: a step must be a finite number >= 0.")
    return steps


def check_lr(lr: object) -> float:
    """Return ``lr`` as a float.

    Raises:
        SpecError: It is not a finite number >= 0.
    """
    number = read_number(lr)
    if number is None or not 0 <= number < math.inf:
        raise SpecError(f"lr={shown(lr)}: a group's lr must be a finite number >= 0.")
    return number
