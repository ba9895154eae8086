"""``discriminative``: a list of groups with rates that rise from the images to the head, as fastai has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scalars import read_number
from layered_lr.spec.groups import Group


def discriminative(parts: Sequence[str | Sequence[str]], lr: float | slice | Sequence[float]) -> list[Group]:
    """Make a group for each part of a model, with rates as fastai gives them.

    Args:
        parts: Patterns as in ``Group.match`` (or lists of them), from the images to the head.
        lr: A number: the same rate for all. ``slice(1e-5, 1e-3)``: from the first to the last, each by the same factor.
            ``slice(1e-3)``: this for the last part, a tenth of it for the others. A list: a rate for each part.

    Raises:
        SpecError: There are no parts, a rate is not > 0, a slice has a step or is the wrong way round, or a list has
            another length.

    Example:
        >>> import layered_lr as ll
        >>> groups = ll.discriminative(["stem", "body", "head"], lr=slice(1e-5, 1e-3))
        >>> [(group.label, f"{group.lr:.0e}") for group in groups]
        [('stem', '1e-05'), ('body', '1e-04'), ('head', '1e-03')]
    """
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise SpecError(f"parts={shown(parts)}: must be a list of patterns, from the images to the head.")
    return [Group(part, lr=rate) for part, rate in zip(parts, _spread(lr, len(parts)), strict=True)]


def _spread(lr: float | slice | Sequence[float], count: int) -> list[float]:
    if isinstance(lr, slice):
        if lr.step is not None:
            raise SpecError(f"lr={lr!r}: a slice has a first and a last rate here, and no step.")
        last = _rate(lr, lr.stop)
        if lr.start is None:
            return [last / 10] * (count - 1) + [last]
        first = _rate(lr, lr.start)
        if first > last:
            raise SpecError(
                f"lr={lr!r}: the first part would be faster than the last one. Write slice({last}, {first})."
            )
        if count == 1:
            return [last]
        return [float(first * (last / first) ** (place / (count - 1))) for place in range(count)]
    if isinstance(lr, list | tuple):
        if len(lr) != count:
            raise SpecError(f"lr={shown(lr)}: has {len(lr)} rates for {count} parts. Give one for each.")
        return [_rate(lr, rate) for rate in lr]
    return [_rate(lr, lr)] * count


def _rate(given: object, rate: Any) -> float:
    number = read_number(rate)
    if number is None or not 0 < number < math.inf:
        raise SpecError(f"lr={shown(given)}: each rate must be a finite number > 0.")
    return number


def groups_from_table(table: object) -> list[Group]:
    """Make the groups that a recipe's table describes: ``{parts = ["body", "head"], lr = [1e-5, 1e-3]}``.

    ``lr`` is a number, a list with a rate for each part, or ``{first = 1e-5, last = 1e-3}``, where ``first`` may be
    left out, as in a slice.

    Raises:
        SpecError: A key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(table, Mapping) or set(table) != {"parts", "lr"}:
        raise SpecError(f"discriminative = {shown(table)}: must be a table with parts and lr.")
    lr = table["lr"]
    if isinstance(lr, Mapping):
        if "last" not in lr or not set(lr) <= {"first", "last"}:
            raise SpecError(
                f"discriminative: lr = {shown(lr)}: must be a number, a list, or {{first = ..., last = ...}}."
            )
        lr = slice(lr.get("first"), lr["last"])
    return discriminative(table["parts"], lr)
