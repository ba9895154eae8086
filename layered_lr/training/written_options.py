"""Which options of a run can be written to a recipe or next to a result, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layered_lr.training.import_paths import import_path
from layered_lr.training.option import options_of


def is_written(value: Any, name: str) -> bool:
    """Whether an option that was given can be written down, with all its parts; what is the default need not be."""
    declared, own = options_of(type(value))[name], getattr(value, name)
    if not declared.is_written or own == declared.default:
        return True
    if declared.parts is not None and isinstance(own, declared.parts):
        return all(is_written(own, part) for part in options_of(declared.parts))
    if name == "loss":
        return bool(own.is_written)
    return name in table_of_options(value)


def table_of_options(value: Any) -> dict[str, Any]:
    """The fields of an option class, as plain as they can be; what cannot be written down is left out."""
    table: dict[str, Any] = {}
    for name, each in options_of(type(value)).items():
        own = getattr(value, name)
        if not each.is_written:
            continue
        if each.parts is not None and isinstance(own, each.parts):
            if parts := table_of_options(own):
                table[name] = parts
        elif _is_plain(own := _plainer(name, own)):
            table[name] = _written(own)
    return table


def _plainer(name: str, value: Any) -> Any:
    """A callable by its import path, a folder of images as a table of its arguments; anything else as it is."""
    if name in ("model", "augment"):
        return import_path(value)
    if name == "loss":  # a function; what has parts is a table already
        return value.to_plain()
    is_folder = type(value).__module__ == "layered_lr.data.image_folder"  # not imported here: it needs NumPy
    return value.to_dict() if name == "data" and is_folder else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | bool | int | float | Path)


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_written(part) for part in value]
    return str(value) if isinstance(value, Path) else value
