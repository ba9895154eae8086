"""Arithmetic that takes a Python float or a float64 array, so that each schedule's formula is written once.

A float goes through ``math`` (a tenth of a NumPy scalar's time, and bit for bit what torch computes), an array
through NumPy. NumPy's own ``cos`` and ``power`` may differ from the C library's by an ulp, depending on the
machine; where that would show, these functions see to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

# A float or a float64 array, the same on both sides of an operation; Any, because no type checker follows that.
Value: TypeAlias = Any

# Below this, one ulp of cos is more than 1e-13 of 1 + cos, which is where torch's rates have to be met exactly.
_CANCELLING = 4e-3
_BITS = 7
_FINE = 1 << _BITS
_WIDE = 2.0**62


def at_most(value: Value, limit: float) -> Value:
    """The smaller of ``value`` and ``limit``."""
    if type(value) is float:
        return value if value < limit else limit
    return np.minimum(value, limit)


def at_least(value: Value, limit: float) -> Value:
    """The larger of ``value`` and ``limit``."""
    if type(value) is float:
        return value if value > limit else limit
    return np.maximum(value, limit)


def whole(value: Value) -> Value:
    """``value`` rounded down, still a float."""
    if type(value) is float:
        return float(math.floor(value))
    return np.floor(value)


def square_root(value: Value) -> Value:
    """The square root of ``value``."""
    return math.sqrt(value) if type(value) is float else np.sqrt(value)


def largest(value: Value) -> float:
    """``value`` itself, or the largest of an array."""
    return value if type(value) is float else float(np.max(value))


def one_plus_cos(angle: Value) -> Value:
    """``1 + cos(angle)``, as exact as the C library's where the two cancel."""
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
    """``base ** exponent``, to the bit the same for a float and in an array.

    Whole exponents are split, ``base ** (128 h) * base ** l``, so that an array needs two look-ups each instead of
    one ``pow``; below 128 that is ``base ** exponent`` itself.
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


def raised(value: Value, exponent: Value) -> Value:
    """``value ** exponent`` where both may change with the step, to the bit the same for floats and in an array."""
    if type(exponent) is float and exponent == 1.0:
        return value
    # A NumPy array of one: the C library's pow differs by an ulp on some machines.
    result = np.power(np.atleast_1d(value), np.atleast_1d(exponent))
    return result.item() if type(value) is float and type(exponent) is float else result


def count_reached(bounds: Sequence[float], step: Value) -> Value:
    """How many of the (ascending) ``bounds`` are <= ``step``, as a float or floats."""
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
    """``piece(i, step, lr)``, with i the number of (ascending) ``bounds`` that each step has passed.

    A piece is asked for its own steps only, so it need not make sense elsewhere.

    Args:
        step: One step, or (n,) of them.
        lr: One rate, or (groups, 1) of them.
        bounds: Where the next piece begins.
        piece: Takes the number of a piece, its steps, and the rates.
        side: ``"right"``: a step equal to a bound belongs to the next piece; ``"left"``: to the one before.

    Returns:
        What ``piece`` returns for one step; for an array, the broadcast of ``lr`` and ``step``.
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
