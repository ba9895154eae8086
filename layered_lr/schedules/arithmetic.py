"""Arithmetic for a Python float or a float64 array, so that each schedule's formula is written once.

A float goes through ``math``, which takes a tenth of a NumPy scalar's time and gives torch's result bit for bit. An
array goes through NumPy. NumPy's ``cos`` and ``power`` may differ from the C library's by one ulp on some machines;
these functions correct that where it matters.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

# A float or a float64 array; an operation returns the kind that it was given. Any, because type checkers cannot follow.
Value: TypeAlias = Any

# Below this value of 1 + cos, one ulp of cos is a relative error above 1e-13: there torch's rates need exact cosines.
_CANCELLING = 4e-3
_BITS = 7
_FINE = 1 << _BITS
_WIDE = 2.0**62


def minimum(value: Value, limit: float) -> Value:
    """Return the smaller of ``value`` and ``limit``."""
    if type(value) is float:
        return value if value < limit else limit
    return np.minimum(value, limit)


def maximum(value: Value, limit: float) -> Value:
    """Return the larger of ``value`` and ``limit``."""
    if type(value) is float:
        return value if value > limit else limit
    return np.maximum(value, limit)


def floor(value: Value) -> Value:
    """Round ``value`` down; the result is still a float."""
    if type(value) is float:
        return float(math.floor(value))
    return np.floor(value)


def square_root(value: Value) -> Value:
    """Return the square root of ``value``."""
    return math.sqrt(value) if type(value) is float else np.sqrt(value)


def largest(value: Value) -> float:
    """Return ``value`` itself, or the largest element of an array of steps; 0 where it is empty."""
    return value if type(value) is float else float(np.max(value, initial=0.0))


def one_plus_cos(angle: Value) -> Value:
    """Return ``1 + cos(angle)``; where the two terms cancel, as exact as the C library."""
    if type(angle) is float:
        return 1 + math.cos(angle)
    result = np.cos(angle)
    result += 1
    if result.min(initial=math.inf) < _CANCELLING:
        cancelling = np.flatnonzero(result < _CANCELLING)
        exact = map(math.cos, angle[cancelling].tolist())
        result[cancelling] = 1 + np.fromiter(exact, np.float64, len(cancelling))
    return result


def power(base: float, exponent: Value) -> Value:
    """Return ``base ** exponent``; a float and an array give the same bits.

    Whole exponents are split into ``base ** (128 h) * base ** l``: an array then needs two table look-ups per element
    instead of one ``pow``. Below 128 the result is ``base ** exponent`` itself.
    """
    if type(exponent) is float:
        if exponent < _FINE or exponent >= _WIDE or exponent != (number := int(exponent)):
            return base**exponent
        return base ** float(number & -_FINE) * base ** float(number & (_FINE - 1))
    if not exponent.size or float(exponent.max()) >= _WIDE:
        return np.array([_power(base, one) for one in exponent.tolist()])
    counts = exponent.astype(np.int64)
    first, last = int(counts.min()) >> _BITS, int(counts.max()) >> _BITS
    if last - first > exponent.size or not np.array_equal(counts, exponent):
        return np.array([_power(base, one) for one in exponent.tolist()])
    coarse = np.array([_power(base, float(one << _BITS)) for one in range(first, last + 1)])
    fine = np.array([_power(base, float(one)) for one in range(min(int(counts.max()) + 1, _FINE))])
    return coarse[(counts >> _BITS) - first] * fine[counts & (_FINE - 1)]


def _power(base: float, exponent: float) -> float:
    try:
        return float(power(base, exponent))
    except OverflowError:
        return math.inf


def raise_to(value: Value, exponent: Value) -> Value:
    """Return ``value ** exponent`` where both may change with the step; floats and arrays give the same bits."""
    if type(exponent) is float and exponent == 1.0:
        return value
    # An array of one element, also for floats: the C library's pow differs from NumPy's by an ulp on some machines.
    result = np.power(np.atleast_1d(value), np.atleast_1d(exponent))
    return result.item() if type(value) is float and type(exponent) is float else result


def count_reached(bounds: Sequence[float], step: Value) -> Value:
    """Count the (ascending) ``bounds`` that are <= ``step``, as a float or an array of floats."""
    if type(step) is float:
        return float(bisect_right(bounds, step))
    return np.searchsorted(np.asarray(bounds, dtype=np.float64), step, side="right").astype(np.float64)


def piecewise(
    step: Value,
    lr: Value,
    bounds: Sequence[float],
    piece: Callable[[int, Value, Value], Value],
    side: Literal["left", "right"] = "right",
) -> Value:
    """Evaluate a function that is defined piece by piece.

    A step that has passed i of the ``bounds`` gets ``piece(i, step, lr)``. A piece is only called for its own steps,
    so its formula may be undefined elsewhere.

    Args:
        step: One step, or an array (n,) of steps.
        lr: One rate, or an array (groups, 1) of rates.
        bounds: Where each next piece begins, ascending.
        piece: Takes the number of a piece, its steps, and the rates.
        side: ``"right"``: a step equal to a bound belongs to the next piece; ``"left"``: to the piece before it.

    Returns:
        The result of ``piece`` for one step; for an array, an array of the broadcast shape of ``lr`` and ``step``.
    """
    if type(step) is float:
        return piece(bisect_right(bounds, step) if side == "right" else bisect_left(bounds, step), step, lr)
    if not step.size:
        return step
    index = np.searchsorted(np.asarray(bounds, dtype=np.float64), step, side=side)
    first, last = int(index.min()), int(index.max())
    if first == last:
        return piece(first, step, lr)
    result = np.empty(np.broadcast_shapes(np.shape(lr), step.shape))
    for number in range(first, last + 1):
        mine = index == number
        if mine.any():
            result[..., mine] = piece(number, step[mine], lr)
    return result
