"""Random arguments for everything public: what comes back is a result or one of this library's errors, nothing else.

A target is a function and a strategy for each of its arguments. To add one, put it into a list of ``Target`` and give
that to ``hold``. ``junk`` is a value of any kind, ``or_junk`` mixes it into sensible values: most targets need both, so
that some calls go past the checks.

``FUZZ_MINUTES`` makes ``hold`` go on with ever new values for so long (``make fuzz``); without it, values are the same
ones in every run, and few.
"""

from __future__ import annotations

import math
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import layered_lr as ll

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))


class Target(NamedTuple):
    """What is called, with what.

    Args:
        name: For messages.
        call: Raises nothing but a ``LayeredLRError``.
        arguments: A strategy for each argument by name.
        maybe: The same for arguments that are also left out.
    """

    name: str
    call: Callable[..., Any]
    arguments: Mapping[str, SearchStrategy[Any]]
    maybe: Mapping[str, SearchStrategy[Any]] = {}


class Unfriendly:
    """Raises where a number or a list would answer."""

    def __len__(self) -> int:
        raise OSError("no length")

    def __float__(self) -> float:
        raise ArithmeticError("no number")

    def __index__(self) -> int:
        raise ArithmeticError("no index")


NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 2**31, 2**53, 2**63, 2**64, -(2**70), 10**400, -(10**400), 10**5000, True, False),
    *(0.0, -0.0, 0.1, 0.5, 0.9, 1.0, -1.0, 1.5, 3.0, 1e-3, 1e-45, 5e-324, 1e38, 1e39, 1e300, 1.7976931348623157e308),
    *(
        math.nan,
        math.inf,
        -math.inf,
        1j,
        Fraction(1, 3),
        np.float32(0.1),
        np.float64("nan"),
        np.int64(3),
        np.bool_(True),
    ),
]
TEXTS: list[Any] = [
    "",
    " ",
    "a",
    "body",
    "head",
    "*",
    "re:(",
    "re:.*",
    "[",
    "\x1b[2J",
    "\udcff",
    "é学",
    "a" * 999,
    "nan",
]
OBJECTS: list[Any] = [
    *(None, b"", b"abc", (), [], {}, set(), [None], ["a", 1], {"a": 1}, object(), object, int, len, Ellipsis, range(3)),
    *(np.ones(3), np.ones((2, 2)), np.array(0.5), np.array("x"), np.array([None]), Path("a"), lambda: 1, lambda x: x),
    *(
        ll.SGD,
        ll.SGD(0.1),
        ll.StepLR(2),
        ll.StepLR,
        ll.Group("a"),
        ll.Phase(),
        ll.Spec(ll.SGD(0.1)),
        iter([]),
        NotImplemented,
    ),
]

junk = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(OBJECTS), st.builds(Unfriendly),
    st.floats(), st.integers(), st.text(st.characters(exclude_characters="/\0"), max_size=6),
    st.lists(st.sampled_from([*NUMBERS, *TEXTS]), max_size=3),
)  # fmt: skip
"""A value of any kind."""


def or_junk(good: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """A sensible value, three times of four."""
    return st.integers(0, 3).flatmap(lambda draw: junk if draw == 0 else good)


def hold(target: Target, examples: int = 60) -> None:
    """Call a target with many values.

    Raises:
        AssertionError: It raised something else than a ``LayeredLRError``; hypothesis shows the smallest arguments.
    """
    for number in rounds():
        hold_once(target, 10 * examples if number else examples, number)


def rounds() -> Iterator[int]:
    """0, and in the long mode as many more numbers as there is time for."""
    until = time.monotonic() + 60 * MINUTES
    number = 0
    while not number or time.monotonic() < until:
        yield number
        number += 1


def hold_once(target: Target, examples: int, number: int) -> None:
    """Call a target with so many values: the same ones for the same number.

    Raises:
        AssertionError: As ``hold``.
    """
    _hold(target, examples, (target.name, number) if number else None)


def _hold(target: Target, examples: int, chosen: tuple[str, int] | None) -> None:
    arguments = st.fixed_dictionaries(dict(target.arguments), optional=dict(target.maybe))

    @settings(
        max_examples=examples, derandomize=chosen is None, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink), print_blob=False,
    )  # fmt: skip
    @given(arguments)
    def check(given_arguments: dict[str, Any]) -> None:
        call(target, given_arguments)

    (check if chosen is None else seed(zlib.crc32(repr(chosen).encode()))(check))()


def call(target: Target, arguments: Mapping[str, Any]) -> Any:
    """Call a target once; None where it refused.

    Raises:
        AssertionError: It raised something else, or its error cannot be shown in a line or two.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return target.call(**arguments)
    except ll.LayeredLRError as error:
        text = str(error)
        assert text and len(text) < 4000 and all(line.isprintable() for line in text.splitlines()), text
        return None
    except Exception as error:
        raise AssertionError(f"{target.name}: {type(error).__name__}: {error}") from error
