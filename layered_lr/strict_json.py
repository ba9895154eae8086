"""JSON as its standard says: without ``Infinity`` and ``NaN``, which most other programs cannot read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def json_text(value: Any, **layout: Any) -> str:
    """A value as strict JSON; numbers that are not finite become the words ``"inf"``, ``"-inf"`` and ``"nan"``.

    Args:
        value: Tables, lists, texts and numbers.
        layout: As ``json.dumps`` takes it.

    Example:
        >>> json_text({"best": float("inf"), "rate": 0.5})
        '{"best": "inf", "rate": 0.5}'
    """
    return json.dumps(_finite(value), allow_nan=False, **layout)


def number_of(value: Any) -> Any:
    """The number that one of the words stands for; anything else as it is."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
