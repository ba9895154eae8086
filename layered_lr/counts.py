"""The check of whole numbers that users give."""

from __future__ import annotations

import contextlib
import operator
from typing import SupportsIndex

import numpy as np

from layered_lr.errors import SpecError


def whole_number(name: str, value: object, minimum: int) -> int:
    """Return a whole number as an int; integers of NumPy are allowed, bools and floats such as 3.0 are not.

    Args:
        name: The name of the argument, for messages.
        value: What the user gave.
        minimum: The smallest value that is allowed.

    Raises:
        SpecError: The value is not a whole number, or is less than ``minimum``.

    Example:
        >>> whole_number("epochs", 3, minimum=1)
        3
    """
    if type(value) is int and value >= minimum:  # fast: a training loop comes here at every step
        return value
    number = None
    if isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_):
        with contextlib.suppress(TypeError):  # arrays have __index__, but most of them raise
            number = operator.index(value)
    if number is None or number < minimum:
        raise SpecError(f"{name}={value!r}: {name} must be a whole number >= {minimum}.")
    return number
