"""Imports a library of somebody else when it is asked for, and says what to install where it is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from typing import Any

from layered_lr.errors import ToolUnavailable


def is_installed(module: str) -> bool:
    """Whether a library can be imported, without importing it.

    A folder of its name that lies where Python looks is none: Python would import it as an empty package.
    """
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def import_tool(module: str, package: str, oldest: str) -> Any:
    """Import a module of another library.

    Args:
        module: Such as ``"lightning.pytorch"``.
        package: The name for pip.
        oldest: The oldest release with which the module here was tried, such as ``"2.4"``.

    Raises:
        ToolUnavailable: The library is missing, too old, or cannot be imported.
    """
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ToolUnavailable(
            f"{package} is not installed, and this needs {package} {oldest} or later. Install it: pip install "
            f"'{package}>={oldest}'."
        ) from None
    if _numbers(found) < _numbers(oldest):
        raise ToolUnavailable(
            f"{package} {found} is installed, and this needs {package} {oldest} or later. Install it: pip install "
            f"'{package}>={oldest}'."
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolUnavailable(f"{package} {found} is installed, but importing {module} failed: {error}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
