"""The declaration of one option of a run: its default, allowed values, meaning, and where it applies.

This module and ``options`` import no NumPy and no pydantic, so that ``layered-lr run --help`` answers at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias, TypeVar

from typing_extensions import dataclass_transform

from layered_lr.counts import MOST, read_whole_number
from layered_lr.errors import SpecError
from layered_lr.guesses import unknown_name
from layered_lr.printed import shown
from layered_lr.scalars import read_number

T = TypeVar("T")
# Where an option has a meaning. Without "resume", a run that goes on keeps what it began with.
EVERYWHERE = ("run", "plan", "compare", "resume")
RUN_ONLY = ("run",)
GOES_ON = ("run", "resume")
MAY_CHANGE = ("run", "compare", "resume")
TRAINING = ("run", "compare")  # batches, masks or arithmetic depend on it
UPDATES = ("run", "plan", "compare")  # so does the count of updates
_KEY = "option"

Check: TypeAlias = Callable[[Any], Any]
"""Gives a value as its option keeps it, or raises ``Refused``, or a ``SpecError`` with words of its own."""


class Refused(Exception):
    """A value that an option cannot have; the message says what it can: ``a whole number >= 1``."""


class Option(NamedTuple):
    """One option of a run.

    Args:
        default: Its value where nothing is given.
        help: What it means, in a sentence or two: the command, the docstrings and the documentation show it.
        check: What it may be.
        allowed: The same in words.
        meaning: Where it has a meaning: ``run``, ``plan``, ``compare``, ``resume``. Without ``resume``, a run that goes
            on keeps what it began with.
        flag: The command's flag; empty where there is none.
        metavar: What stands behind the flag in the command's help.
        kind: What the command reads: ``int``, ``float``, ``str``, ``bool`` (a flag for yes and one for no), ``list``
            (the flag may be repeated), ``pairs`` (a number, or numbers by pattern), ``words`` (a word, or words by
            pattern), ``optional`` (the flag alone means ``"DEFAULT"``).
        accepts: The type that ``ll.run`` takes, where it is wider than the field's.
        parts: The class of values that this option groups. Its fields have flags of their own.
        compare_default: The default in ``compare``, where it is another one.
        shown_default: The default in words, where the value itself does not tell it.
        compare_shown: The same for ``compare``, where it is another one.
        is_written: Whether a recipe can hold it.
    """

    default: Any
    help: str
    check: Check
    allowed: str
    meaning: tuple[str, ...]
    flag: str = ""
    metavar: str = ""
    kind: str = "str"
    accepts: str = ""
    parts: type | None = None
    compare_default: Any = None
    shown_default: str = ""
    compare_shown: str = ""
    is_written: bool = True

    def default_in(self, command: str) -> Any:
        """The default in one of the places where the option has a meaning."""
        return self.compare_default if command == "compare" and self.compare_default is not None else self.default


def option(
    *, default: Any, help: str, check: Check, allowed: str = "", meaning: tuple[str, ...] = EVERYWHERE, **more: Any
) -> Any:
    """A field of an ``option_class``; the arguments are those of ``Option``."""
    words = allowed or getattr(check, "words", "")
    return field(default=default, metadata={_KEY: Option(default, help, check, words, meaning, **more)})


def options_of(cls: Any) -> dict[str, Option]:
    """The options that a class declares, by name, in their order."""
    return {each.name: each.metadata[_KEY] for each in fields(cls)}


@dataclass_transform(frozen_default=True, field_specifiers=(option, field))
def option_class(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass whose fields are options, each checked when an object is made.

    Messages call it what its ``__called__`` says. ``dataclasses.replace`` works, and checks again.
    """
    made: Any = dataclass(frozen=True)(cls)
    declared = options_of(made)
    initialise: Callable[..., None] = made.__init__

    @functools.wraps(initialise)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = _given(made.__called__, list(declared), args, kwargs)
        initialise(
            self,
            **{
                name: _checked(made.__called__, name, each, given.get(name, each.default))
                for name, each in declared.items()
            },
        )

    made.__init__ = checked_init
    return made  # type: ignore[no-any-return]


def _given(called: str, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The values that were given, by name.

    Raises:
        SpecError: Too many of them, an unknown name, or one name twice.
    """
    if len(args) > len(names):
        raise SpecError(f"{called} takes at most {len(names)} values: {', '.join(names)}.")
    given = dict(zip(names, args, strict=False))
    for name in kwargs:
        if name not in names:
            raise SpecError(f"{called} has no {shown(name)}.{old_name(name) or unknown_name(called, str(name), names)}")
        if name in given:
            raise SpecError(f"{called} was given {name!r} twice, by position and by name.")
    return {**given, **kwargs}


def _checked(called: str, name: str, declared: Option, value: Any) -> Any:
    try:
        return declared.check(value)
    except Refused as refused:
        error = SpecError(f"{called}({name}={shown(value)}): {name} must be {refused}.")
        if declared.flag and declared.kind != "bool":
            error.wrong_flag = (declared.flag, str(refused))
        raise error from None


_OLD_NAMES = {
    "checkpoint_dir": "checkpoints=ll.Checkpoints(folder)",
    "checkpoint_every": "checkpoints=ll.Checkpoints(folder, every=...)",
    "keep": "checkpoints=ll.Checkpoints(folder, keep=...)",
    "keep_best": "checkpoints=ll.Checkpoints(folder, keep_best=...)",
    "on_divergence": "divergence=...",
    "rollback_factor": "divergence=ll.Divergence('rollback', rollback_factor=...)",
    "skip_advances": "divergence=ll.Divergence('skip', skip_advances=...)",
    "dtype": "precision=...",
    "autocast": "precision=ll.Precision(autocast=...)",
    "reset_weights": "initial_weights=ll.InitialWeights(source, reset=...)",
}


def old_name(name: str) -> str:
    """How an option is given now that had a name of its own in 0.1.0."""
    return f" Give {_OLD_NAMES[name]} instead." if name in _OLD_NAMES else ""


def _worded(words: str) -> Callable[[Check], Check]:
    """Say what a check allows."""

    def decorate(check: Check) -> Check:
        check.words = words  # type: ignore[attr-defined]
        return check

    return decorate


def whole_number(minimum: int, limit: int | None = None) -> Check:
    """A whole number, not below ``minimum`` and below ``limit``; no bool is one."""
    words = f"a whole number >= {minimum}" + ("" if limit is None else f" and < {limit}")

    @_worded(words)
    def check(value: Any) -> int:
        number = read_whole_number(value)
        if number is None or number < minimum or (limit is not None and number >= limit):
            raise Refused(words)
        if limit is None and number > MOST:
            raise Refused(f"{words}, and at most 2**53")
        return number

    return check


def number(words: str, is_allowed: Callable[[float], bool]) -> Check:
    """A finite number of a range; neither a string nor a bool is one.

    Args:
        words: The range in words.
        is_allowed: Whether a number is in it.
    """

    @_worded(words)
    def check(value: Any) -> float:
        number = read_number(value)
        if number is None or not math.isfinite(number) or not is_allowed(number):
            raise Refused(words)
        return number

    return check


def optional(inner: Check) -> Check:
    """What ``inner`` takes, or None."""

    @_worded(f"{getattr(inner, 'words', '')}, or None".removeprefix(", or "))
    def check(value: Any) -> Any:
        return None if value is None else inner(value)

    return check


def one_of(*words: str) -> Check:
    """One of some words."""
    shown = ", ".join(map(repr, words[:-1])) + f" or {words[-1]!r}"

    @_worded(shown)
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise Refused(f"one of {shown}")
        return value

    return check


@_worded("true or false")
def yes_or_no(value: Any) -> bool:
    """True or false, and nothing that counts as such."""
    if not isinstance(value, bool):
        raise Refused("true or false")
    return value
