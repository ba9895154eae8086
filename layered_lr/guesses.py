"""Hints for names and values that people give who come from another library."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import ParamSpec, TypeVar

from layered_lr.names_elsewhere import ARGUMENTS, TYPES, Guesses
from layered_lr.spelling import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")


def unknown_name(owner: str, name: str, known: Collection[str]) -> str:
    """Say what a name that something does not have was probably meant for, or else which names there are.

    Args:
        owner: ``"Group"``, ``"Spec"``, ``"Phase"``, ``"optimizer"``, ``"schedule"``, ``"run"``, ``"compare"`` or
            ``"loop"``; anything else has spelling mistakes alone.
        name: What was given.
        known: The names that there are.

    Example:
        >>> unknown_name("Group", "lr_mult", ["match", "lr", "lr_scale"])
        " Did you mean 'lr_scale'?"
        >>> unknown_name("Group", "wings", ["match", "lr"])
        ' It takes: match, lr.'
    """
    return explain_guess(owner, name, known) or f" It takes: {', '.join(known)}."


def explain_guess(owner: str, name: str, known: Collection[str]) -> str:
    """Say what a name was probably meant for; nothing where nobody can tell.

    Args:
        owner: As for ``unknown_name``.
        name: What was given.
        known: The names that there are.

    Example:
        >>> explain_guess("optimizer", "Momentum", ["lr", "momentum"])
        " Did you mean 'momentum'?"
    """
    for own in known:
        if _folded(own) == _folded(name):
            return f" Did you mean {own!r}?"
    tables = [owner, "run"] if owner in ("compare", "plan") else [owner]
    for table in tables:
        for advice in _by_guess(table).get(_folded(name), ()):
            if " " in advice:
                return f" {advice}"
            if advice in known:
                return f" Did you mean {advice!r}?"
    return did_you_mean(name, known)


def explain_type(name: str, known: Collection[str]) -> str:
    """Say which of the known classes or functions a name from elsewhere was probably meant for; nothing where none.

    Example:
        >>> explain_type("Momentum", ["SGD", "Adam"])
        ' Use SGD with momentum=0.9.'
    """
    for own in known:
        if _folded(own) == _folded(name):
            return f" Did you mean {own!r}?"
    for advice in _types().get(_folded(name), ()):
        if advice.replace("(", " ").split()[0] in known:
            return f" Use {advice}."
    return did_you_mean(name, known)


def explain_value(value: object, wanted: str, known: Collection[str]) -> str:
    """Say what to give instead of a value of another kind: torch's own class or object, a dict, a name, a class.

    Args:
        value: What was given.
        wanted: ``"optimizer"``, ``"schedule"``, ``"group"`` or ``"phase"``.
        known: The classes that are allowed.

    Example:
        >>> explain_value({"params": [], "lr": 0.1}, "group", ["Group"])
        " A dict is taken by ll.Spec.from_dict alone. Name its parameters by a pattern: ll.Group('features', lr=0.1)."
        >>> explain_value("adam", "optimizer", ["SGD", "Adam"])
        " Did you mean 'Adam'? Give an object of it: ll.Adam(...)."
    """
    if isinstance(value, str):
        found = explain_type(value, known)
        own = next((name for name in known if name in found.replace("'", " ").split()), None)
        return f"{found} Give an object of it: ll.{own}(...)." if own else found
    if isinstance(value, Mapping):
        named = " Name its parameters by a pattern: ll.Group('features', lr=0.1)." if "params" in value else ""
        return f" A dict is taken by ll.Spec.from_dict alone.{named}"
    kind = value if isinstance(value, type) else type(value)
    if _root(kind) == "layered_lr":
        if isinstance(value, type) and kind.__name__ in known:
            return f" {kind.__name__} is a class: give an object of it, ll.{kind.__name__}(...)."
        return f" {kind.__name__} is something else."
    if is_foreign(value):
        return f" {kind.__name__} is a class of {_root(kind)}.{explain_type(kind.__name__, known)}"
    if wanted == "schedule" and callable(value):
        return " A function of the step is ll.LambdaLR (of a factor) or ll.Function (of the rate itself)."
    return ""


def is_foreign(value: object) -> bool:
    """Whether a class or an object comes from a library other than this one, NumPy and Python's own."""
    return _root(value if isinstance(value, type) else type(value)) not in _AT_HOME


_AT_HOME = frozenset({"layered_lr", "numpy", "__main__", "__mp_main__", *sys.stdlib_module_names})


def _root(kind: type) -> str:
    return str(getattr(kind, "__module__", "")).partition(".")[0]


def explain_names(
    owner: str, old_name: Callable[[str], str] = lambda _: ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Say of an argument by name that a function does not take what it may have been meant for.

    Args:
        owner: As for ``unknown_name``.
        old_name: Says what a name of an earlier version is called now; empty for all others.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    raise TypeError(
                        f"{function.__name__}() got an unexpected keyword argument {name!r}."
                        f"{old_name(name) or unknown_name(owner, name, known)}"
                    )
            return function(*args, **kwargs)

        return called

    return decorate


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _inverted(guesses: Guesses) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for advice, names in guesses.items():
        for name in names.split():
            found.setdefault(_folded(name), []).append(advice)
    return found


@functools.cache
def _by_guess(owner: str) -> Mapping[str, list[str]]:
    return _inverted(ARGUMENTS.get(owner, {}))


@functools.cache
def _types() -> Mapping[str, list[str]]:
    return _inverted(TYPES)
