"""Checks an argument that is true or false."""

from __future__ import annotations

from layered_lr.errors import SpecError
from layered_lr.printed import shown


def check_yes_or_no(called: str, name: str, value: object) -> bool:
    """Return true or false.

    Args:
        called: The function or class, for messages.
        name: The argument.
        value: What was given.

    Raises:
        SpecError: It is neither; 1, "no" and NumPy's booleans do not count as such.

    Example:
        >>> check_yes_or_no("sweep", "trust", False)
        False
    """
    if not isinstance(value, bool):
        raise SpecError(f"{called}({name}={shown(value)}): must be true or false.")
    return value
