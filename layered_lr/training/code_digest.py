"""A digest of what a function does, as far as its code and constants say: equal in processes that do the same."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEEPEST = 6


def digest_code(value: Any, with_values: bool = True) -> str:
    """A digest of a callable: its code, that of functions of its module that it calls, and what it holds.

    File names, line numbers and addresses do not count: processes on other machines have other ones. Objects of
    frameworks count by their class and what they hold.

    Args:
        value: A function, an object that is called, or a class.
        with_values: Whether defaults, closures, and what an object holds count too. For what may differ between
            processes, such as the name of a GPU, they do not.
    """
    found = hashlib.blake2b(digest_size=8)
    for part in _Parts(with_values).of(value, 0):
        found.update(f"{len(part)}:".encode() + part)
    return found.hexdigest()


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """A digest of arrays by name, their order aside."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        for part in _array_parts(arrays[name]):
            found.update(name.encode() + part)
    return found.hexdigest()


def without_addresses(text: str) -> str:
    """A text in which no object's address stands."""
    return _ADDRESS.sub("", text)


_OTHERS = ("builtins", "torch", "torchvision", "torchmetrics", "timm", "transformers", "oneflow", "flowvision", "numpy")


def _is_known(module: str | None) -> bool:
    """Whether the code of a module is that of a package whose version is compared, or of Python itself."""
    package = "" if module is None else module.split(".")[0]
    return package in _OTHERS or package.startswith("layered_lr")


class _Parts:
    """Takes a value apart into bytes."""

    def __init__(self, with_values: bool) -> None:
        self._with_values = with_values
        self._seen: set[int] = set()

    def of(self, value: Any, depth: int) -> list[bytes]:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return [repr(value).encode(errors="replace")]
        depth += 1
        if depth > _DEEPEST:
            return [type(value).__qualname__.encode()]
        if isinstance(value, list | tuple):
            return [b"list", *(part for each in value for part in self.of(each, depth))]
        if isinstance(value, set | frozenset):  # in an order of its own in each process
            return [b"set", *sorted(b" ".join(self.of(each, depth)) for each in value)]
        if isinstance(value, CodeType):
            return self._of_code(value, depth)
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return _array_parts(value)
        if id(value) in self._seen:
            return [b"again"]
        self._seen.add(id(value))
        return self._of_object(value, depth)

    def _of_object(self, value: Any, depth: int) -> list[bytes]:
        if isinstance(value, Mapping):
            return [b"table", *(part for item in value.items() for part in self.of(item, depth))]
        if isinstance(value, FunctionType):
            return self._of_function(value, depth)
        if isinstance(value, MethodType):
            return self.of(value.__func__, depth) + self._held(value.__self__, depth)
        if isinstance(value, functools.partial):
            return self.of(value.func, depth) + self._held([value.args, value.keywords], depth)
        if isinstance(value, type):
            return self._of_class(value, depth)
        name = f"{getattr(value, '__module__', '')} {getattr(value, '__name__', '')}"  # of what is written in C
        held = getattr(value, "__dict__", None)
        parts = [name.encode(), *self.of(type(value), depth)]
        return parts + (self._held(held, depth) if isinstance(held, dict) else [])

    def _held(self, value: Any, depth: int) -> list[bytes]:
        return self.of(value, depth) if self._with_values else []

    def _of_class(self, cls: type, depth: int) -> list[bytes]:
        parts = [cls.__qualname__.encode()]
        for base in cls.__mro__:
            if not _is_known(base.__module__):
                own = {name: each for name, each in vars(base).items() if isinstance(each, FunctionType)}
                parts += [part for name in sorted(own) for part in self.of(own[name], depth)]
        return parts

    def _of_function(self, function: FunctionType, depth: int) -> list[bytes]:
        if _is_known(function.__module__):
            return [f"{function.__module__}.{function.__qualname__}".encode()]
        parts = self._of_code(function.__code__, depth)
        parts += self._held([function.__defaults__, function.__kwdefaults__, _closure_of(function)], depth)
        for name in _names_of(function.__code__):
            used = function.__globals__.get(name)
            if isinstance(used, float):
                parts += self._held(used, depth)
            elif isinstance(used, FunctionType | type) and used.__module__ == function.__module__:
                parts += self.of(used, depth)
        return parts

    def _of_code(self, code: CodeType, depth: int) -> list[bytes]:
        names = repr((code.co_names, code.co_varnames, code.co_freevars)).encode()
        return [code.co_code, names, *self.of(code.co_consts, depth)]


def _closure_of(function: FunctionType) -> list[Any]:
    """What a function has taken from around it; a name that has no value yet is left out."""
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _names_of(code: CodeType) -> list[str]:
    """The global names that code uses, with those of functions inside of it."""
    found = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += _names_of(constant)
    return list(dict.fromkeys(found))


def _array_parts(array: Any) -> list[bytes]:
    """An array's dtype, shape and numbers; those of a tensor that NumPy cannot hold do not count."""
    parts = [f"{array.dtype} {tuple(array.shape)}".encode()]
    with contextlib.suppress(Exception):  # a tensor of a framework may raise anything
        here = array.detach().cpu().numpy() if hasattr(array, "detach") else array
        parts.append(np.ascontiguousarray(here).tobytes())
    return parts
