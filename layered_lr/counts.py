"""Checks whole numbers that users give. It imports no NumPy, so that ``--help`` is instant."""

from __future__ import annotations

import operator
from typing import SupportsIndex, cast

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scalars import unwrap_scalar

MOST = 2**53  # above it a float64, in which every rate is computed, does not hold each whole number


def read_whole_number(value: object) -> int | None:
    """Return the whole number that a value is, as an int; None where it is none, as a bool and 3.0 are.

    Integers of NumPy and of tensors without axes are whole numbers.

    Example:
        >>> read_whole_number(3), read_whole_number(3.0), read_whole_number(True)
        (3, None, None)
    """
    value = unwrap_scalar(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(cast(SupportsIndex, value))
    except Exception:  # arrays have __index__, but most of them raise; an object of the user may raise anything
        return None


def whole_number(name: str, value: object, minimum: int, *, is_count: bool = True) -> int:
    """Return a whole number as an int, as ``read_whole_number`` reads it.

    Args:
        name: The name of the argument, for messages.
        value: What the user gave.
        minimum: The smallest value that is allowed.
        is_count: Whether it counts something; a seed does not, and may be larger than a float64 can count.

    Raises:
        SpecError: The value is not a whole number, is less than ``minimum``, or is a count of more than 2**53.

    Example:
        >>> whole_number("epochs", 3, minimum=1)
        3
    """
    if type(value) is int and minimum <= value <= MOST:  # fast: a training loop comes here at every step
        return value
    number = read_whole_number(value)
    if number is None or number < minimum:
        raise SpecError(f"{name}={shown(value)}: {name} must be a whole number >= {minimum}.")
    if is_count and number > MOST:
        raise SpecError(f"{name}={shown(value)}: {name} must be at most 2**53, above which float64 skips numbers.")
    return number
