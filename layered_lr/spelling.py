"""Finds the known name that is nearest to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to a misspelt one, if any is near; one with other capitals is nearest."""
    names = list(known)
    same = next((each for each in names if each.casefold() == name.casefold()), None)
    return same or next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known name that is nearest, or nothing."""
    near = find_nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""
