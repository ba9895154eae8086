"""The command's flags, made from the declarations of the options (``layered_lr.training.options``)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from layered_lr.errors import SpecError
from layered_lr.training.import_paths import is_import_path
from layered_lr.training.option import Option, options_of
from layered_lr.training.options import RunOptions, options_with_meaning

C = TypeVar("C", bound=Callable[..., Any])
_PART = "__"  # between an option and its part in the name that click knows the flag by


class _Pairs(click.ParamType[Any]):
    """A value, or values by pattern: ``0.5``, or ``classifier=0.5,features=0.1``.

    Args:
        read: Makes a value of its text.
    """

    name = "pairs"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the flag's text."""
        if not isinstance(value, str):
            return value
        parts = [part.rpartition("=") for part in value.split(",")]
        try:
            if len(parts) == 1 and not parts[0][1]:
                return self._read(parts[0][2])
            names = [pattern.strip() for pattern, _, _ in parts]
            for name in names:
                if not name:
                    self.fail(f"{value!r}: nothing stands before a '='; '*' is the pattern for all", param, ctx)
                if names.count(name) > 1:
                    self.fail(f"{value!r}: {name!r} is given twice", param, ctx)
            return {pattern.strip(): self._read(text.strip()) for pattern, _, text in parts}
        except ValueError:
            self.fail(f"{value!r} is neither a number nor pattern=number,…", param, ctx)


def written(value: Any) -> str:
    """The text of a flag's value, as the flag reads it.

    Example:
        >>> written({"head": "xavier", "*": "svd"}), written(0.5)
        ('head=xavier,*=svd', '0.5')
    """
    return ",".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, Mapping) else str(value)


_TYPES: Mapping[str, Any] = {"int": int, "float": float, "pairs": _Pairs(float), "words": _Pairs(str)}


def add_flags(command: str, *, without: tuple[str, ...] = ()) -> Callable[[C], C]:
    """Give a command the flags of all options that have a meaning there.

    Args:
        command: ``run``, ``plan``, ``compare`` or ``resume``.
        without: Names of options that the command declares itself.
    """

    def decorate(function: C) -> C:
        for name, declared in reversed(list(_flags_of(command))):
            if name not in without and name.partition(_PART)[0] not in without:
                function = _click_option(name, declared, command)(function)
        return function

    return decorate


def _flags_of(command: str, cls: Any = RunOptions, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """The flags of a command: those of options, and those of the parts of options."""
    for name in options_with_meaning(command, cls):
        declared = options_of(cls)[name]
        if declared.flag:
            yield prefix + name, declared
        if declared.parts is not None:
            yield from _flags_of(command, declared.parts, name + _PART)


def _click_option(name: str, declared: Option, command: str) -> Callable[[C], C]:
    help = _with_flags(f"{declared.help}  [{_shown_default(declared, command)}]".removesuffix("  []"))
    if declared.kind == "bool":
        flags = f"{declared.flag}/{declared.flag.replace('--', '--no-', 1)}"
        return click.option(flags, name, default=None, help=help)
    if declared.kind == "list":
        return click.option(declared.flag, name, multiple=True, metavar=declared.metavar, help=f"{help} Repeatable.")
    more: dict[str, Any] = {"is_flag": False, "flag_value": "DEFAULT"} if declared.kind == "optional" else {}
    return click.option(
        declared.flag, name, **more, type=_TYPES.get(declared.kind), metavar=declared.metavar or None, help=help
    )


def _with_flags(text: str) -> str:
    """A help text in the words of the command: ``--max-steps``, where Python says ``max_steps``."""
    for name, declared in options_of(RunOptions).items():
        if "_" in name and declared.flag:
            text = re.sub(rf"(?<![\w.-]){name}\b", declared.flag, text)
    return text


def _shown_default(declared: Option, command: str) -> str:
    """The default in words; empty where there is nothing to say, or where a run that goes on keeps its own."""
    default = declared.default_in(command)
    if command == "resume":
        return ""
    if command == "compare" and declared.compare_shown:
        return declared.compare_shown
    if declared.shown_default:
        return declared.shown_default
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "" if default is None or default == () else str(default)


def read_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said on the command line, as a table: parts of an option in a table of their own.

    Args:
        given: click's values by name; None, or nothing to repeat, means that nothing was said.
    """
    said: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        whole, _, part = name.partition(_PART)
        if part and isinstance(said.get(whole, {}), str):
            flag = options_of(options_of(RunOptions)[whole].parts)[part].flag
            raise SpecError(f"{flag} goes with --{whole} cross_entropy alone, not with --{whole} {said[whole]}.")
        if part:
            said.setdefault(whole, {})[part] = value
        else:
            said[whole] = value
    return said


def describe_in_flags(error: Exception, words: Sequence[str]) -> str:
    """Say what is wrong with an option in the words of the command, where a flag has given it.

    Args:
        error: What was raised.
        words: Of the command line.
    """
    if not isinstance(error, SpecError) or error.wrong_flag is None:
        return str(error)
    flag, allowed = error.wrong_flag
    said: dict[str, str] = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, text = word.partition("=")
        said.setdefault(name, text if equals else after)
    if flag in said:
        return f"{flag} {said[flag]}: must be {allowed}."
    for parts in (each.parts for each in options_of(RunOptions).values() if each.parts is not None):
        flags = [each.flag for each in options_of(parts).values()]
        if flag in flags and (beside := next(filter(said.__contains__, flags), None)):
            return f"{beside} needs {flag} beside it: {allowed}."
    return str(error)


def look_here_last(said: dict[str, Any], trust: bool) -> None:
    """Let Python find modules of the current folder, after all others: where a flag names one, or --trust is said."""
    names_code = any(is_import_path(str(said.get(name, ""))) for name in ("model", "loss"))
    if (trust or names_code) and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
