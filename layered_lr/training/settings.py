"""Settings of a spec that the command line gives, ``optimizer.lr=1e-3``, in the place of a recipe's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.spec.spec import RUN_TABLE, Spec
from layered_lr.spelling import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def change_spec(spec: Spec, settings: Sequence[str], *, trust: bool = False) -> Spec:
    """Change some settings of a spec.

    Args:
        spec: As a recipe has it.
        settings: Texts ``KEY=VALUE``, in their order. ``KEY`` is a path in the recipe: ``layer_decay``,
            ``optimizer.lr``, ``schedule``, ``groups.head.lr_scale`` (a group by its name, or by its number from 0 on).
            ``VALUE`` is written as in TOML; what is none is a text: ``optimizer.type=AdamW``.
        trust: Whether functions that the spec names may be imported.

    Raises:
        SpecError: A text is no such setting, its key leads nowhere, or the spec cannot be right.

    Example:
        >>> import layered_lr as ll
        >>> changed = change_spec(ll.Spec(ll.SGD(0.1)), ["optimizer.lr=0.2", "layer_decay=0.8"])
        >>> changed.optimizer.lr, changed.layer_decay
        (0.2, 0.8)
    """
    if not settings:
        return spec
    table = spec.to_dict()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise SpecError(f"--set {shown(setting)}: must be KEY=VALUE, such as optimizer.lr=1e-3 or layer_decay=0.8.")
        _put(table, key.strip().split("."), _read_value(text.strip()), key.strip())
    try:
        return Spec.from_dict(table, trust=trust)
    except SpecError as error:
        raise SpecError(f"with --set {' --set '.join(settings)}: {error}") from None


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _put(table: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Put a value into nested tables and lists of tables."""
    if path[0] == RUN_TABLE:
        raise SpecError(
            f"--set {key}: is no setting of the spec. An option of the run has a flag: --epochs, --model, …"
        )
    place: Any = table
    for depth, part in enumerate(path):
        is_last = depth == len(path) - 1
        before = ".".join(path[:depth])
        if isinstance(place, list):
            labels = [_label(each) for each in place]
            number = labels.index(part) if part in labels else int(part) if part.isdecimal() else len(place)
            if number >= len(place):
                known = f" It has: {', '.join(labels)}." if labels else " It has none."
                raise SpecError(f"--set {key}: {before} has no {part!r}.{did_you_mean(part, labels)}{known}")
            if is_last:
                place[number] = value
            place = place[number]
        elif isinstance(place, dict):
            if is_last:
                place[part] = value
            elif part not in place:
                known = f" The recipe has: {', '.join(place)}." if place else ""
                where = f"{before} has" if before else "the recipe has"
                raise SpecError(f"--set {key}: {where} no {part!r}.{did_you_mean(part, place)}{known}")
            place = place[part]
        else:
            raise SpecError(f"--set {key}: {before} is {shown(place)}, which has no parts. Set {before} itself.")


def _label(table: Any) -> str:
    """What a group is called in a recipe: its name, or its pattern."""
    if not isinstance(table, dict):
        return ""
    named = table.get("name") or table.get("match")
    return named if isinstance(named, str) else ""
