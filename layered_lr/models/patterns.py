"""Patterns that match names: paths of modules and parameters, globs, regular expressions."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Callable, Collection

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import plain_name
from layered_lr.printed import shown

GLOB_CHARACTERS = "*?["
REGEX_PREFIX = "re:"


def check_pattern(pattern: object, what: str = "match") -> str:
    """Return the pattern if it is valid.

    Args:
        pattern: A module or parameter path, a glob, or ``"re:<regex>"``.
        what: The name of the argument, for messages.

    Raises:
        SpecError: Not a string, empty, with characters that do not print, or an invalid regular expression.
    """
    if not isinstance(pattern, str):
        raise SpecError(
            f"{what}={shown(pattern)} ({type(pattern).__name__}): must be a module or parameter path, a glob, "
            "'re:<regex>', or a list of these."
        )
    if not pattern.removeprefix(REGEX_PREFIX).strip():
        raise SpecError(f"{what}={pattern!r}: the pattern is empty; use '*' to take every parameter.")
    if not pattern.isprintable():
        raise SpecError(
            f"{what}={shown(pattern)}: holds a character that does not print. Write '?' for it, or '.' in a regular "
            "expression."
        )
    if pattern.startswith(REGEX_PREFIX):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as 'possible nested set': later Pythons will read it differently
                re.compile(pattern.removeprefix(REGEX_PREFIX))
        except (re.error, OverflowError, RecursionError, FutureWarning, DeprecationWarning) as error:
            raise SpecError(f"{what}={pattern!r}: not a valid regular expression: {error}.") from None
    return pattern


def compile_pattern(pattern: str, paths: Collection[str] = ()) -> Callable[[str], bool]:
    """Make the function that tells whether a pattern matches a name.

    A pattern that is the path of a parameter or module of the model is that path, whatever characters it has. Else a
    pattern that begins with ``re:`` is a regular expression for the whole name, and a pattern with any of ``*?[`` is a
    glob for the whole name, in which ``*`` also matches dots. Every other pattern is a path: it matches the parameter
    of that name, and all parameters under the module of that name.

    Args:
        pattern: A valid pattern.
        paths: The names of the model's parameters and modules.

    Example:
        >>> matches = compile_pattern("features.1")
        >>> matches("features.1.conv.weight"), matches("features.18.0.weight")
        (True, False)
        >>> compile_pattern("conv[1]", paths={"conv[1]", "conv[1].weight", "conv1"})("conv1.weight")
        False
    """
    path = plain_name(pattern)
    if path not in paths:
        if pattern.startswith(REGEX_PREFIX):
            expression = re.compile(pattern.removeprefix(REGEX_PREFIX))
            return lambda name: expression.fullmatch(name) is not None
        if any(character in pattern for character in GLOB_CHARACTERS):
            return lambda name: fnmatch.fnmatchcase(name, pattern)
    return lambda name: name == path or name.startswith(path + ".")
