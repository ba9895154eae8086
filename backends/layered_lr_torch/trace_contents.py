"""What a model keeps in attributes and variables that a ``Watch`` cannot follow: whether passes change it."""

from __future__ import annotations

import hashlib
import pickle
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from layered_lr_torch.torch_types import Module
from layered_lr_torch.trace_attributes import MAPPINGS, NUMBERS, SERIES, is_plain_object, list_tables
from layered_lr_torch.trace_variables import list_defaults

_LARGEST: Final = 2**26  # bytes: more than this is data, and no count
_PLAIN: Final = (*NUMBERS, bool, str, type(None))
_BASIC: Final = (*_PLAIN, bytes, tuple, list, dict, set, frozenset)


class Contents:
    """What is in a model's attributes and variables of other kinds than those that a ``Watch`` follows, at one time.

    Args:
        model: Whose they are.
    """

    def __init__(self, model: Module) -> None:
        self._held: dict[tuple[str, Any], _Content] = {}
        for table in list_tables(model):
            for key in table.keys:
                content = _take(table.values[key])
                if content.parts:
                    self._held[table.path, key] = content
        for path, defaults in list_defaults(model):
            self._held[path, "defaults"] = _of_parts(list(defaults))

    def find_changed(self, later: Contents) -> str | None:
        """Find one that is another one at a later time, or holds a part that is; return its path.

        Parts that were added to a collection since, or taken out, do not count.
        """
        for place, content in self._held.items():
            now = later._held.get(place)
            if now is None or now.is_whole != content.is_whole:
                continue
            digests = dict(zip(map(id, now.parts), now.digests, strict=True))
            for part, digest in zip(content.parts, content.digests, strict=True):
                if (now.digests[0] if content.is_whole else digests.get(id(part), digest)) != digest:
                    return f"{place[0]}{place[1]}"
        return None


class _Content(NamedTuple):
    """Of one attribute.

    Args:
        is_whole: Whether the only part is the value itself, and not a part of a collection.
        parts: Kept, so that nothing else gets the ``id`` of one.
        digests: Of the parts.
    """

    is_whole: bool
    parts: list[Any]
    digests: list[bytes]


def _take(value: Any) -> _Content:
    """Take what of a value nothing else follows: the value itself, or parts of a collection."""
    kind = type(value)
    is_followed = kind in (*NUMBERS, bool, type(None)) or isinstance(value, torch.Tensor | np.ndarray)
    if is_followed or kind in MAPPINGS or is_plain_object(value):
        return _of_parts([])
    if kind in SERIES or kind is set:
        return _of_parts([part for part in value if type(part) not in _PLAIN])
    return _of_parts([value])._replace(is_whole=True)


def _of_parts(parts: list[Any]) -> _Content:
    return _Content(False, parts, [digest(part) for part in parts])


def digest(value: Any) -> bytes:
    """Sum up all that can be reached from a value; empty where that is too much, or goes too deep."""
    sink = _Sink()
    try:
        _Pickler(sink, protocol=4).dump(value)
    except (_TooMuch, RecursionError, pickle.PicklingError, TypeError, ValueError, AttributeError):
        return b""
    return sink.sum.digest()


class _TooMuch(Exception):
    pass


class _Sink:
    """A file that keeps a sum of what is written to it."""

    def __init__(self) -> None:
        self.sum, self._size = hashlib.blake2b(), 0

    def write(self, data: Any) -> int:
        size = len(memoryview(data).cast("B"))
        self._size += size
        if self._size > _LARGEST:
            raise _TooMuch
        self.sum.update(data)
        return size


class _Pickler(pickle.Pickler):
    """Writes tensors by their numbers; modules, functions and what cannot be pickled by where they are."""

    def persistent_id(self, value: Any) -> Any:
        if type(value) in _BASIC:
            return None
        if isinstance(value, FakeTensor) or (isinstance(value, torch.Tensor) and value.is_inference()):
            return "activation"
        if isinstance(value, torch.Tensor):
            return "tensor", str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes()
        if isinstance(value, torch.nn.Module | type | FunctionType | BuiltinFunctionType | ModuleType):
            return "object", id(value)
        try:
            value.__reduce_ex__(4)
        except Exception:  # whatever a class raises that is not to be pickled
            return "object", id(value)
        return None
