"""Specs, groups, phases and optimizers as plain tables, which TOML and JSON can hold, and back."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.files import as_path, one_line, read_plain
from layered_lr.guesses import explain_type
from layered_lr.models.where import Where
from layered_lr.optimizers import OPTIMIZERS, Optimizer
from layered_lr.printed import shown
from layered_lr.schedules import SCHEDULES, Schedule, schedule_from_dict, schedule_to_dict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEEPEST = 40  # of tables and lists inside one another
_FLATTER = "a spec needs a few. Put the schedules next to one another, in one SequentialLR or ChainedScheduler."


def to_table(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults; the table of a schedule or optimizer also has its ``type``.

    Args:
        value: A spec, a group, a phase, an optimizer or a schedule.

    Raises:
        SpecError: It contains an optimizer class of the user, or a function without an import path.
    """
    if isinstance(value, Schedule):
        return schedule_to_dict(value)
    table: dict[str, Any] = {}
    if isinstance(value, Optimizer):
        if type(value) not in OPTIMIZERS.values():
            raise SpecError(
                f"{type(value).__name__} is a class of your own, which cannot be saved. These can: "
                f"{', '.join(OPTIMIZERS)}."
            )
        table["type"] = type(value).__name__
    for field in fields(value):
        item = getattr(value, field.name)
        if field.default is MISSING or item != field.default:
            table[field.name] = _to_plain(item)
    return table


def _to_plain(item: Any) -> Any:
    if isinstance(item, tuple):
        return ["none" if part is None else _to_plain(part) for part in item]  # TOML has no None: Adafactor's eps
    if isinstance(item, Where):
        return item.to_table()
    return to_table(item) if hasattr(item, "__dataclass_fields__") else item


def optimizer_from_table(table: Any) -> Optimizer:
    """Make the optimizer that ``{"type": "SGD", "lr": 0.1, ...}`` describes.

    Raises:
        SpecError: The type or a key is unknown, or a value is not allowed.
    """
    name = _read_type(table, OPTIMIZERS, "optimizer")
    return OPTIMIZERS[name](**{key: value for key, value in table.items() if key != "type"})


def schedule_from_table(table: Any) -> Schedule:
    """Make the schedule that ``{"type": "StepLR", "step_size": 30, ...}`` describes.

    Raises:
        SpecError: The type or a key is unknown, or a value is not allowed.
    """
    _read_type(table, SCHEDULES, "schedule")
    return schedule_from_dict(table)


def _read_type(table: object, known: Collection[str], what: str) -> str:
    if not isinstance(table, Mapping):
        raise SpecError(f"{what} = {shown(table)}: must be a table such as {{type = {next(iter(known))!r}, ...}}.")
    name: object = table.get("type")
    if name is None:
        raise SpecError(f"{what}: needs a type, such as type = {next(iter(known))!r}. Use one of {', '.join(known)}.")
    if not isinstance(name, str) or name not in known:
        hint = explain_type(name, known) if isinstance(name, str) else ""
        raise SpecError(f"{what}: type = {shown(name)} is not one of {', '.join(known)}.{hint}")
    return name


def read_toml(text_or_path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML text or file.

    Args:
        text_or_path: A ``Path``, a string that ends in ``.toml``, or the text itself.

    Raises:
        SpecError: There is no such file, or it is not TOML; the message says where.
    """
    if not isinstance(text_or_path, str | Path):
        raise SpecError(f"TOML: got a {type(text_or_path).__name__}; must be a text or the path of a .toml file.")
    is_path = isinstance(text_or_path, Path) or (text_or_path.endswith(".toml") and "\n" not in text_or_path)
    if not is_path:
        text = str(text_or_path).removeprefix("\ufeff")  # what editors of Windows begin a file with
        if text.strip() and not any(character in text for character in "=\n["):
            raise SpecError(f"{text!r} is neither TOML nor the path of a file that ends in .toml.")
        return _parse(text, "the TOML text")
    path = as_path("TOML", text_or_path)
    try:
        return _parse(read_plain(path).decode("utf-8-sig").replace("\r\n", "\n"), str(path))
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file. Give the path of a TOML recipe.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a TOML text: {error}") from None


def check_depth(value: object, what: str) -> None:
    """Refuse tables and lists that lie too deep inside one another for all that goes through them.

    Raises:
        SpecError: They are deeper than any that makes sense.
    """
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [part for each in layer for part in _parts(each)]
        if not layer:
            return
    raise SpecError(f"{what} has more than {_DEEPEST} tables or lists inside one another: {_FLATTER}")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise SpecError(f"{where} has tables or lists inside one another, too deep to be read: {_FLATTER}") from None
    except ValueError as error:  # a number of thousands of digits is one too
        raise SpecError(f"{where} is not valid TOML: {one_line(error)}") from None
    check_depth(tables, where)
    return tables
