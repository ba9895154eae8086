"""Looks into torch's functions that are written in Python, so that a mode sees the functions that they call."""

from __future__ import annotations

import types
from typing import Any, Final

from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_UNSEEN: Final = {
    name: lambda *_: False for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
}


class FunctionCopies:
    """Copies of functions that do not hand themselves to a ``TorchFunctionMode`` again."""

    def __init__(self) -> None:
        self._globals: dict[int, dict[str, Any]] = {}
        self._running: list[tuple[object, tuple[int, ...]]] = []

    def run(self, mode: TorchFunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a function that is written in Python, so that the mode sees the functions that it calls.

        Returns:
            What it returns; ``NotImplemented`` where it is none, or has come back to the mode with the same arguments.
        """
        if not isinstance(func, types.FunctionType):
            return NotImplemented
        call = (func, tuple(id(leaf) for leaf in tree_leaves((args, kwargs))))
        if call in self._running:
            return NotImplemented
        self._running.append(call)
        try:
            with mode:
                return self.copy(func)(*args, **kwargs)
        finally:
            self._running.pop()

    def copy(self, func: types.FunctionType) -> Any:
        """Copy a function, with the names of its module bound so that it does its work itself."""
        bound = self._globals.setdefault(id(func.__globals__), {**func.__globals__, **_UNSEEN})
        closure = func.__closure__ and tuple(
            types.CellType(self.copy(cell.cell_contents)) if _checks_for_modes(cell, func) else cell
            for cell in func.__closure__
        )
        copied = types.FunctionType(func.__code__, bound, func.__name__, func.__defaults__, closure)
        copied.__kwdefaults__ = func.__kwdefaults__
        return copied


def _checks_for_modes(cell: types.CellType, func: types.FunctionType) -> bool:
    inner = cell.cell_contents
    return (
        isinstance(inner, types.FunctionType)
        and inner is not func
        and any(name in _UNSEEN for name in inner.__code__.co_names)
    )
