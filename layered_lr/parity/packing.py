"""Packs what a comparison gives to its processes, also what stands in the script that was started."""

from __future__ import annotations

import ast
import importlib.util
import io
import pickle
import sys
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from layered_lr.errors import SpecError

MAIN = "__layered_lr_main__"


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        """What stands in the script that was started, by the script's path: another process finds it there."""
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
            main = sys.modules["__main__"]
            spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
            if spec is not None or file is not None:
                _check_reachable(value, main, file)
                return (spec and spec.name, file and str(Path(file).resolve()), value.__qualname__)
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, known: Any) -> Any:
        name, path, qualname = known
        return _find(importlib.import_module(name) if name else _script(path), qualname)


def _find(module: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        module = getattr(module, part)
    return module


def _check_reachable(value: FunctionType | type, main: Any, file: str | None) -> None:
    """Refuse what another process, which imports the script, would not find by its name.

    Raises:
        PicklingError: It is no member of the script, or is one only where the script is started.
    """
    name = value.__qualname__
    try:
        is_member = _find(main, name) is value
    except AttributeError:
        is_member = False
    if not is_member:
        raise pickle.PicklingError(f"{name} cannot be found in the script by its name")
    if file is not None and name.partition(".")[0] in _list_guarded(file):
        raise pickle.PicklingError(f"{name} stands under if __name__ == '__main__', where other processes do not look")


@cache
def _list_guarded(file: str) -> frozenset[str]:
    """List the functions and classes that stand in a script under ``if __name__ == "__main__"``."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):  # it is gone, or is no text of Python
        return frozenset()
    guards = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    inside = [each for guard in guards for statement in guard.body for each in ast.walk(statement)]
    return frozenset(
        each.name for each in inside if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def _script(path: str) -> Any:
    if MAIN not in sys.modules:
        spec = importlib.util.spec_from_file_location(MAIN, path)
        assert spec is not None and spec.loader is not None
        sys.modules[MAIN] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[MAIN])
    return sys.modules[MAIN]


def packed(value: Any, what: str) -> bytes:
    """The value as bytes.

    Raises:
        SpecError: It holds a function that another process cannot import.
    """
    content = io.BytesIO()
    try:
        _Pickler(content).dump(value)
    except Exception as error:  # pickle raises what each object raises
        raise SpecError(
            f"{what} goes to processes of its own, and this cannot: {error}. Functions must stand at the top level of "
            "a module: no lambda, nothing made inside another function."
        ) from None
    return content.getvalue()


def unpacked(content: bytes) -> Any:
    """What ``packed`` was given."""
    return _Unpickler(io.BytesIO(content)).load()
