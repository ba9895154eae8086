"""Wide matrices of cases: `make test` runs some, each of another kind, and `make test-exhaustive` the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

Case = TypeVar("Case")


def keep_some(values: Iterable[Case], is_kept: Callable[[Case], bool]) -> list[Any]:
    """Make the parameters of a test: those that are not kept are marked ``exhaustive``."""
    return [value if is_kept(value) else pytest.param(value, marks=pytest.mark.exhaustive) for value in values]
