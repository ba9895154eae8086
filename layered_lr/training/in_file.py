"""What a file may not make the library do without trust: import code, and write to places that it names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from layered_lr.errors import SpecError
from layered_lr.training.import_paths import is_import_path

T = TypeVar("T")
_CODE = ("model", "augment", "loss")  # options that may be the import path of a callable


class InFile(str):
    """A text that comes from a file. It is a string like any other, but an option refuses to act on it."""


def by_hand(name: str, value: T) -> T:
    """Return the value of an option that imports code or writes somewhere, if the user has given it.

    Args:
        name: The option's.
        value: What was given.

    Raises:
        SpecError: A file has given it, and the user has not said that the file can be trusted.
    """
    if isinstance(value, InFile):
        what = "code to import, which runs it" if name in _CODE else "a place to write to"
        raise SpecError(
            f"{name}={str(value)!r}: a file names {what}. If you trust whoever wrote the file, say so: --trust "
            f"(trust=True); or give {name} yourself."
        )
    return value


def marked(run: dict[str, Any]) -> dict[str, Any]:
    """The options of a file. Those that import code or write somewhere are marked as ``InFile``."""
    found = dict(run)
    for name in (*_CODE, "save"):
        if isinstance(found.get(name), str) and (name == "save" or is_import_path(found[name])):
            found[name] = InFile(found[name])
    if isinstance(found.get("log"), str):
        found["log"] = InFile(found["log"])
    elif isinstance(found.get("log"), list):
        found["log"] = [InFile(word) if isinstance(word, str) else word for word in found["log"]]
    loss = found.get("loss")
    if isinstance(loss, dict) and isinstance(loss.get("function"), str):
        found["loss"] = {**loss, "function": InFile(loss["function"])}
    checkpoints = found.get("checkpoints")
    if isinstance(checkpoints, str):
        found["checkpoints"] = InFile(checkpoints)
    elif isinstance(checkpoints, dict) and isinstance(checkpoints.get("folder"), str):
        found["checkpoints"] = {**checkpoints, "folder": InFile(checkpoints["folder"])}
    return found


def unmarked(run: dict[str, Any]) -> dict[str, Any]:
    """The options of ``marked`` without those that may not be obeyed."""
    kept = {name: value for name, value in run.items() if not isinstance(value, InFile)}
    if isinstance(kept.get("log"), list) and any(isinstance(word, InFile) for word in kept["log"]):
        del kept["log"]
    if isinstance(kept.get("loss"), dict) and isinstance(kept["loss"].get("function"), InFile):
        del kept["loss"]
    if isinstance(kept.get("checkpoints"), dict):
        kept["checkpoints"] = {
            name: value for name, value in kept["checkpoints"].items() if not isinstance(value, InFile)
        }
    return kept


_FUNCTIONS = ("function", "lr_lambda", "scale_fn", "metric")


def names_code(options: Mapping[str, Any], spec: Any) -> bool:
    """Whether options or a spec, as plain tables, name code that going on with the run would import."""
    said = [options.get(name) for name in _CODE]
    paths = any(isinstance(each, str) and is_import_path(each) for each in said)
    return paths or _names_functions(options.get("loss")) or _names_functions(spec)


def needs_trust(options: Mapping[str, Any], spec: Any) -> bool:
    """Whether going on with a run would import code, or write to a place, that its folder names."""
    return bool(options.get("log")) or names_code(options, spec)


def command_to_go_on(folder: str | Path, options: Mapping[str, Any], spec: Any) -> str:
    """The command that goes on with a run, as a shell takes it.

    Args:
        folder: Of the run, as it was given.
        options: Of the run, as a plain table.
        spec: The same.

    Example:
        >>> command_to_go_on("my run", {"model": "package.module:net"}, {})
        "layered-lr resume 'my run' --trust"
    """
    return f"layered-lr resume {shlex.quote(str(folder))}{' --trust' if needs_trust(options, spec) else ''}"


def _names_functions(part: Any) -> bool:
    if isinstance(part, Mapping):
        return any(
            (name in _FUNCTIONS and isinstance(value, str) and ":" in value) or _names_functions(value)
            for name, value in part.items()
        )
    return isinstance(part, list | tuple) and any(map(_names_functions, part))
