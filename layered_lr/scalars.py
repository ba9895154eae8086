"""The scalars of NumPy, torch and OneFlow as numbers of Python. It imports nothing, so that ``--help`` is instant."""

from __future__ import annotations


def unwrap_scalar(value: object) -> object:
    """Turn a NumPy scalar, or an array or tensor without axes, into a Python number; return all else unchanged.

    Example:
        >>> import numpy as np
        >>> unwrap_scalar(np.float64(0.5)), unwrap_scalar(np.array(3)), unwrap_scalar("a word")
        (0.5, 3, 'a word')
    """
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
