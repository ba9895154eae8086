"""Callables by import path, ``package.module:name``, and back."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.printed import shown


def is_import_path(model: str) -> bool:
    """Whether a model's name is the import path of a callable; ``timm:NAME`` is not.

    Example:
        >>> is_import_path("package.module:make_net"), is_import_path("timm:resnet18"), is_import_path("resnet18")
        (True, False, False)
    """
    return ":" in model and not model.startswith("timm:")


def imported(path: str, what: str) -> Any:
    """The object that ``package.module:name`` stands for.

    Args:
        path: Where it is.
        what: The option that messages speak of.

    Raises:
        SpecError: It cannot be imported, or is not there, or cannot be called.
    """
    module, _, name = path.partition(":")
    try:
        value = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:  # importing a module runs it
        from layered_lr.files import one_line

        raise SpecError(
            f"{what}={shown(path)}: must be package.module:name of something to import. "
            f"{type(error).__name__}: {one_line(error)}"
        ) from None
    if not callable(value):
        raise SpecError(f"{what}={shown(path)}: is a {type(value).__name__}; must be callable.")
    return value


def import_path(value: Any) -> Any:
    """``package.module:name`` of a callable that can be imported by it; anything else as it is."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    if isinstance(value, str) or not callable(value) or module is None or "<" in name:
        return value
    if module == "__main__":  # of `python -m package.module`: known by name, and not to be run a second time here
        known = getattr(sys.modules[module].__spec__, "name", None)
        return value if known is None else f"{known}:{name}"
    try:
        found = imported(f"{module}:{name}", "model")
    except SpecError:
        return value
    return f"{module}:{name}" if found is value else value
