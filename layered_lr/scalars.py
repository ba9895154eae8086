"""The scalars of NumPy, torch and OneFlow as numbers of Python. It imports no NumPy, so that ``--help`` is instant."""

from __future__ import annotations

import math


def unwrap_scalar(value: object) -> object:
    """Turn a NumPy scalar, or an array or tensor without axes, into a Python number; return all else unchanged.

    Example:
        >>> import numpy as np
        >>> unwrap_scalar(np.float64(0.5)), unwrap_scalar(np.array(3)), unwrap_scalar("a word")
        (0.5, 3, 'a word')
    """
    try:
        return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    except Exception:  # an object of the user, or a tensor without memory, may raise anything
        return value


def read_number(value: object) -> float | None:
    """Return the number that a value is, as a float; None where it is none, as a bool and a text are.

    A whole number that is too large for a float is infinite.

    Example:
        >>> read_number(3), read_number(10**400), read_number(True)
        (3.0, inf, None)
    """
    number = unwrap_scalar(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
