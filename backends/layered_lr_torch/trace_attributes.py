"""Plain attributes of a model, and variables that it reads: what they hold, and whether those that change are read."""

from __future__ import annotations

import operator
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, MutableMapping
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from layered_lr_torch.callers import OWN_PACKAGES
from layered_lr_torch.torch_types import Module
from layered_lr_torch.trace_variables import list_variables

OWN_TABLES: Final = ("_parameters", "_buffers", "_modules")
MAPPINGS: Final = (dict, OrderedDict, defaultdict, Counter)
SERIES: Final = (list, deque)
NUMBERS: Final = (int, float)

_ATTRIBUTES_OF_EACH: Final = frozenset(torch.nn.Module().__dict__)
_PLAIN_OBJECTS: Final = (SimpleNamespace, Namespace)
_NO_VALUES: Final = (type, FunctionType, BuiltinFunctionType, ModuleType, staticmethod, classmethod, property)
_MANY_PASSES: Final = 10_007  # a prime number: what counts by twos, threes or tens is elsewhere in its round
_DEEPEST: Final = 4  # objects in objects: a model's settings, not everything that a program holds


class Table(NamedTuple):
    """A mapping that holds plain attributes or variables, of a module or of what stands in one of them.

    Args:
        path: Where it is, such as ``"body.0.cfg."``.
        values: The dictionary itself.
        keys: Of the attributes.
        of_module: Whether it is a module's ``__dict__``.
    """

    path: str
    values: MutableMapping[Any, Any]
    keys: tuple[Any, ...]
    of_module: bool


def list_tables(model: Module) -> list[Table]:
    """List every mapping of plain attributes or variables once, those of modules first."""
    tables: list[Table] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        names = (name for name in module.__dict__ if name not in OWN_TABLES)
        keys = tuple(name for name in names if not (name.startswith("_") and name in _ATTRIBUTES_OF_EACH))
        tables.append(Table(f"{path}." if path else "", module.__dict__, keys, True))
    for path, variables in list_variables(model):
        keys = tuple(name for name, value in variables.items() if not isinstance(value, _NO_VALUES))
        tables.append(Table(path, variables, keys, False))
    level = list(tables)
    for _ in range(_DEEPEST):
        level = [table for outer in level for table in _list_inner(outer, seen)]
        tables += level
    return tables


def _list_inner(outer: Table, seen: set[int]) -> Iterator[Table]:
    for key in outer.keys:
        value: Any = outer.values[key]
        if id(value) in seen:
            continue
        if type(value) in MAPPINGS:
            seen.add(id(value))
            yield Table(f"{outer.path}{key}.", value, tuple(value), False)
        elif is_plain_object(value):
            seen.add(id(value))
            yield Table(f"{outer.path}{key}.", value.__dict__, tuple(value.__dict__), False)


def is_plain_object(value: Any) -> bool:
    """Whether a value is an object of a class that the user wrote, such as one with the model's settings."""
    kind = type(value)
    package = kind.__module__.split(".")[0]
    if isinstance(value, type | torch.nn.Module) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    return kind in _PLAIN_OBJECTS or package not in (*OWN_PACKAGES, "numpy", *sys.stdlib_module_names)


def list_values(model: Module) -> list[Any]:
    """List the values of all plain attributes."""
    return [table.values[key] for table in list_tables(model) for key in table.keys]


class Counts:
    """What the numbers, tensors and collections among a model's plain attributes are at one time."""

    def __init__(self, model: Module) -> None:
        self._held = {
            (table.path, key): _describe(table.values[key]) for table in list_tables(model) for key in table.keys
        }

    def find_changed(self, later: Counts) -> set[tuple[str, Any]]:
        """Find the attributes that are others at a later time."""
        return {place for place, held in self._held.items() if place in later._held and later._held[place] != held}


def _describe(value: Any) -> Any:
    kind = type(value)
    if kind in NUMBERS:
        return kind, value
    if kind is np.ndarray:
        return id(value), value.tobytes()
    if isinstance(value, torch.Tensor):
        return None if value.is_inference() else (id(value), value._version)
    if kind in SERIES or kind is set or kind in MAPPINGS:
        return kind, tuple(each if type(each) in NUMBERS else id(each) for each in value)
    return None


class Watch:
    """Puts numbers and collections in the place of attributes that keep changing, and notes whether they are read.

    To add to a number or to a collection, and to print it, is not to read it. Nor is to read a collection in which
    nothing is left of earlier passes, because it was cleared first.

    Args:
        model: Gets them; ``put_back`` takes them out again.
        places: The attributes.

    Attributes:
        read: The attribute that was read first, by its path; None if none was.
        tensors: Plain tensors that keep changing, with their paths; whoever runs the pass says when they are read.
    """

    def __init__(self, model: Module, places: set[tuple[str, Any]]) -> None:
        self.read: str | None = None
        self._kept: list[Any] = []  # so that nothing else gets the ``id`` of what is in a collection
        self.tensors: list[tuple[torch.Tensor, str]] = []
        for table in reversed(list_tables(model)):  # what is inside of another one first
            for key in table.keys:
                if (table.path, key) in places:
                    table.values[key] = self._follow(table.values[key], f"{table.path}{key}")

    def _follow(self, value: Any, path: str) -> Any:
        kind = type(value)
        made: Any
        if kind in NUMBERS:
            made = _NUMBER_CLASSES[kind](value)
        elif kind is np.ndarray:
            made = value.view(_WatchedArray)
        elif kind in _COLLECTION_CLASSES:
            parts = [self._follow(each, path) if type(each) in NUMBERS else each for each in value]
            self._kept.append(parts)
            if kind in MAPPINGS:
                made = _COLLECTION_CLASSES[kind](value)
            elif kind is deque:
                made = _COLLECTION_CLASSES[kind](parts, value.maxlen)
            else:
                made = _COLLECTION_CLASSES[kind](parts)
        else:
            if isinstance(value, torch.Tensor):
                self.tensors.append((value, path))
            return value
        made.watch, made.path = self, path
        if kind in _COLLECTION_CLASSES:
            made.old = frozenset(map(id, made if kind in MAPPINGS else parts))
        return made

    def note_read(self, path: str) -> None:
        """Say that what the model computes may depend on an attribute."""
        self.read = self.read or path

    def follow(self, value: Any, path: str) -> Any:
        """Let what was computed of a number be watched too."""
        return self._follow(value, path)


def move_numbers(model: Module, places: set[tuple[str, Any]]) -> bool:
    """Let the numbers in attributes that keep changing be what they are many passes later; whether there are any.

    What Python itself reads of a number, such as ``range(self.calls)``, is no call that a ``Watch`` could note.

    Args:
        model: Gets them, in the place of what a ``Watch`` has put there.
        places: The attributes.
    """
    found = False
    for table in list_tables(model):
        for key in table.keys:
            value = table.values[key]
            if (table.path, key) in places and isinstance(value, NUMBERS):
                table.values[key] = _plain(value) + _MANY_PASSES
                found = True
    return found


class Watched:
    """A number or a collection that notes when it is read."""

    watch: Watch | None = None
    path = ""
    old: frozenset[int] = frozenset()  # of a collection: the ``id`` of each part that an earlier pass has left in it

    def note_read(self) -> None:
        """Say that what the model computes may depend on it."""
        if self.watch is not None:
            self.watch.note_read(self.path)


class _WatchedArray(Watched, np.ndarray[Any, Any]):
    """An array of NumPy whose numbers, and whose parts, are watched too."""

    def __array_finalize__(self, made_of: Any) -> None:
        self.watch, self.path = getattr(made_of, "watch", None), getattr(made_of, "path", "")

    def __getitem__(self, index: Any) -> Any:
        made = super().__getitem__(index)
        return self.watch.follow(made.item(), self.path) if self.watch and isinstance(made, np.number) else made

    def __setitem__(self, index: Any, value: Any) -> None:
        if index is Ellipsis or (isinstance(index, slice) and index == slice(None)):
            self.watch = None  # from now on, all of it is of this pass
        array: Any = super()
        array.__setitem__(index, _plain(value) if isinstance(value, NUMBERS) else value)


def _noting(base: type, name: str) -> Callable[..., Any]:
    plain = getattr(base, name)

    def read(self: Any, *args: Any, **named: Any) -> Any:
        self.note_read()
        return plain(self, *args, **named)

    return read


def _noting_what_is_old(base: Any, name: str) -> Callable[..., Any]:
    """Make a method of a collection that reads all of it."""
    plain = getattr(base, name)

    def read(self: Any, *args: Any, **named: Any) -> Any:
        if any(id(part) in self.old for part in base.__iter__(self)):
            self.note_read()
        return plain(self, *args, **named)

    return read


def _taking_one(base: Any, name: str) -> Callable[..., Any]:
    """Make a method of a series that reads a part of it; a number among its parts notes itself when it is read."""
    plain = getattr(base, name)

    def take(self: Any, *args: Any) -> Any:
        made = plain(self, *args)
        if args and isinstance(args[0], slice):  # how long it is depends on everything that is there
            is_old = any(id(part) in self.old for part in base.__iter__(self))
        else:
            is_old = id(made) in self.old and not isinstance(made, Watched)
        if is_old:
            self.note_read()
        return made

    return take


def _computing(base: Any, name: str, is_reversed: bool = False) -> Callable[..., Any]:
    function: Any = getattr(operator, name)

    def compute(self: Any, other: Any) -> Any:
        if not isinstance(other, NUMBERS):
            self.note_read()
            return NotImplemented
        pair = base.__pos__(self), _plain(other)
        return self.watch.follow(function(*(pair[::-1] if is_reversed else pair)), self.path)

    return compute


def _plain(number: Any) -> Any:
    base: Any = type(number).__mro__[-2]
    return base.__pos__(number) if isinstance(number, Watched) else number


_COMPARISONS: Final = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_READS_OF_NUMBERS: Final = (*_COMPARISONS, "__bool__", "__hash__", "__int__", "__float__", "__divmod__", "__round__")
_ARITHMETIC: Final = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_READS_OF_COLLECTIONS: Final = (
    *(*_COMPARISONS, "__len__", "__iter__", "__contains__", "__reversed__", "__add__", "__mul__", "index", "count"),
    *("copy", "keys", "values", "items"),
)


def _make_number_class(base: type) -> Any:
    reads = {name: _noting(base, name) for name in _READS_OF_NUMBERS}
    computes = {f"__{name}__": _computing(base, name) for name in _ARITHMETIC}
    computes |= {f"__r{name}__": _computing(base, name, is_reversed=True) for name in _ARITHMETIC}
    return type(base.__name__, (Watched, base), {**reads, **computes})


def _make_collection_class(base: type) -> Any:
    reads = {name: _noting_what_is_old(base, name) for name in _READS_OF_COLLECTIONS if hasattr(base, name)}
    if base in SERIES:
        reads |= {name: _taking_one(base, name) for name in ("__getitem__", "pop")}
    return type(base.__name__, (Watched, base), reads)


for _name in (*_COMPARISONS, "__bool__", "__int__", "__float__", "__iter__", "item", "tolist", "astype"):
    setattr(_WatchedArray, _name, _noting(np.ndarray, _name))
for _name in ("sum", "mean", "max", "min", "any", "all", "argmax", "argmin", "nonzero"):
    setattr(_WatchedArray, _name, _noting(np.ndarray, _name))

_NUMBER_CLASSES: Final[dict[type, Any]] = {base: _make_number_class(base) for base in NUMBERS}
_COLLECTION_CLASSES: Final[dict[type, Any]] = {
    base: _make_collection_class(base) for base in (list, deque, set, dict, OrderedDict, Counter)
}
