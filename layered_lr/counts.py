"""Whole numbers that users give: checked in one way everywhere."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from layered_lr.errors import SpecError


def whole_number(name: str, value: Any, minimum: int) -> int:
    """``value`` as an int, NumPy's integers too; neither a bool nor a float with a whole value is one.

    Raises:
        SpecError: No whole number, or less than ``minimum``.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise SpecError(f"{name}={value!r}: {name} must be a whole number >= {minimum}.")
    return number
