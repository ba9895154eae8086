"""What a model's functions can change outside of its modules: attributes of its classes, and variables of functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple

from layered_lr_torch.callers import OWN_PACKAGES
from layered_lr_torch.torch_types import Module

_MISSING = object()


class Variables(NamedTuple):
    """Variables that stand together, outside of every module.

    Args:
        path: What to say before a name, such as ``"class Net."``.
        values: The variables by name; to set and to delete one there changes the variable itself.
    """

    path: str
    values: MutableMapping[Any, Any]


def list_variables(model: Module) -> list[Variables]:
    """List the attributes of a model's classes, and the variables outside of its functions, that a forward pass names.

    Only classes and functions that the user wrote count: ``forward``, hooks, functions in attributes, and those that
    these call by a name of their own.
    """
    reached = _reach(model)
    of_functions = [Variables(f"function {each.__qualname__}.", each.__dict__) for each in reached.functions]
    of_classes = [Variables(f"class {kind.__name__}.", _Attributes(kind, reached.named)) for kind in reached.classes]
    return [*reached.cells, *reached.files, *of_functions, *of_classes]


def list_defaults(model: Module) -> list[tuple[str, tuple[Any, ...]]]:
    """List the defaults of the arguments of these functions, with what to say before a name; see ``list_variables``."""
    return [
        (f"{each.__qualname__}: ", (*(each.__defaults__ or ()), *(each.__kwdefaults__ or {}).values()))
        for each in _reach(model).functions
        if each.__defaults__ or each.__kwdefaults__
    ]


class _Reached(NamedTuple):
    """What a model's functions can reach.

    Args:
        classes: Of the modules.
        functions: Of the user's.
        named: All names in them.
        cells: The variables of outer functions.
        files: The global names of their files.
    """

    classes: list[type]
    functions: list[FunctionType]
    named: set[str]
    cells: list[Variables]
    files: list[Variables]


def _reach(model: Module) -> _Reached:
    classes = list({kind: None for module in model.modules() for kind in type(module).__mro__ if _is_the_users(kind)})
    waiting: list[Any] = []
    for module in model.modules():
        hooks = *module._forward_hooks.values(), *module._forward_pre_hooks.values()
        waiting += [*module.__dict__.values(), *hooks]
    named, functions = {"forward"}, dict[int, FunctionType]()
    cells: list[Variables] = []
    files: dict[int, Variables] = {}
    while True:
        waiting += [vars(kind)[name] for kind in classes for name in vars(kind).keys() & named]
        fresh = {id(each): each for each in map(_unwrap, waiting) if _is_users_function(each)}
        if not fresh.keys() - functions.keys():
            break
        waiting = []
        for function in (fresh[key] for key in fresh.keys() - functions.keys()):
            named |= set(_list_names(function.__code__))
            outer = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
            cells.append(Variables(f"{function.__qualname__}: ", _Cells(outer)))
            file = Variables(f"{function.__module__}.", _Globals(function.__globals__, named))
            files.setdefault(id(function.__globals__), file)
            waiting += [*cells[-1].values.values(), *file.values.values(), *(function.__defaults__ or ())]
        functions |= fresh
    return _Reached(classes, list(functions.values()), named, cells, list(files.values()))


def _is_users_function(value: Any) -> bool:
    return isinstance(value, FunctionType) and _is_the_users(value)


def _is_the_users(made: Any) -> bool:
    package = str(made.__module__).split(".")[0]
    return package not in {*OWN_PACKAGES, "numpy", *sys.stdlib_module_names}


def _unwrap(value: Any) -> Any:
    """Find the function of a method, or of a property."""
    if isinstance(value, property):
        return value.fget
    return getattr(value, "__func__", value)


def _list_names(code: CodeType) -> Iterator[str]:
    """List the names that a function reads from outside, and those of the functions inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _list_names(constant)


class _Live(MutableMapping[Any, Any]):
    """A mapping over variables that exist elsewhere, which holds those of its names that have a value now."""

    def _names(self) -> Iterator[str]:
        raise NotImplementedError

    def _get(self, name: str) -> Any:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        value = self._get(name)
        if value is _MISSING:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._names()) if self._get(name) is not _MISSING)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Attributes(_Live):
    """The attributes that a class has itself, of those that are named."""

    def __init__(self, kind: type, named: set[str]) -> None:
        self._kind, self._named = kind, named

    def _names(self) -> Iterator[str]:
        return (name for name in vars(self._kind) if name in self._named)

    def _get(self, name: str) -> Any:
        return vars(self._kind).get(name, _MISSING)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._kind, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self._kind, name)


class _Globals(_Live):
    """The variables of a file, of those that are named."""

    def __init__(self, variables: dict[str, Any], named: set[str]) -> None:
        self._variables, self._named = variables, named

    def _names(self) -> Iterator[str]:
        return iter(sorted(self._named))

    def _get(self, name: str) -> Any:
        return self._variables.get(name, _MISSING)

    def __setitem__(self, name: str, value: Any) -> None:
        self._variables[name] = value

    def __delitem__(self, name: str) -> None:
        del self._variables[name]


class _Cells(_Live):
    """The variables of outer functions that a function reads."""

    def __init__(self, cells: dict[str, CellType]) -> None:
        self._cells = cells

    def _names(self) -> Iterator[str]:
        return iter(self._cells)

    def _get(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:  # it has none yet
            return _MISSING

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self._cells[name].cell_contents
