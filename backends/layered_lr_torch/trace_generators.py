"""Generators of random numbers that a forward pass may draw from: Python's, NumPy's, and those that a model owns."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from layered_lr.errors import Unsupported
from layered_lr_torch.torch_types import Module
from layered_lr_torch.trace_attributes import list_values
from layered_lr_torch.trace_recorder import find_source

_KINDS = (random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState, torch.Generator)


class Generators:
    """The generators that a model can reach, and their states at the time.

    They are those of Python and NumPy, those in attributes of the model's modules, and those among the global names of
    the files in which its classes stand.
    """

    def __init__(self, model: Module) -> None:
        found = [random._inst, np.random.mtrand._rand, *_list_generators(model)]
        # What a model draws from torch's default generator is recorded.
        self._generators = list({id(each): each for each in found if each is not torch.default_generator}.values())
        self._states = [_read(each) for each in self._generators]

    def put_back(self) -> None:
        """Give the generators the states that they had."""
        for generator, (state, described) in zip(self._generators, self._states, strict=True):
            if _read(generator)[1] != described:
                _write(generator, state)

    def check(self, path: str) -> None:
        """Refuse a module in whose forward pass numbers were drawn.

        Raises:
            Unsupported: There were.
        """
        for generator, (_, described) in zip(self._generators, self._states, strict=True):
            if _read(generator)[1] != described:
                where = f"module {path!r}" if path else "the model itself"
                own = "Python's or NumPy's generator"
                what = own if generator in self._generators[:2] else f"a {type(generator).__name__} of its own"
                raise Unsupported(
                    f"model: draws from {what}, in {where}, which cannot be translated. Draw with torch, from its "
                    "default generator."
                )


@contextmanager
def refuse_seeds() -> Iterator[None]:
    """Refuse to seed torch's default generator, or to set its state, in a ``with`` block.

    Raises:
        Unsupported: The model does; each of its passes would draw the same.
    """
    unseeded = _Unseeded(torch.default_generator)
    with patch.object(torch, "default_generator", unseeded), patch.object(torch.random, "default_generator", unseeded):
        yield


class _Unseeded:
    """A generator that nobody may seed."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __getattr__(self, name: str) -> Any:
        if name in ("manual_seed", "seed", "set_state"):
            raise Unsupported(
                f"model: seeds torch's generator of random numbers, or sets its state ({name}), at {find_source()}: "
                "each of its passes draws the same numbers. That cannot be translated. Leave it out, or train on a "
                "torch backend."
            )
        return getattr(self._generator, name)


def _list_generators(model: Module) -> Iterator[Any]:
    for value in list_values(model):
        yield from (part for part in _list_parts(value) if isinstance(part, _KINDS))
    files = {type(module).__module__ for module in model.modules()}
    for file in files - {"torch"}:
        names = vars(sys.modules[file]) if file in sys.modules else {}
        yield from (value for value in list(names.values()) if isinstance(value, _KINDS))


def _list_parts(value: Any) -> Iterator[Any]:
    """List what a list or a tuple holds, without a note that a watched one was read; anything else is one part."""
    if isinstance(value, list):
        return list.__iter__(value)
    return iter(value if isinstance(value, tuple) else (value,))


def _read(generator: Any) -> tuple[Any, bytes]:
    """Return a generator's state, and bytes that say whether two states are the same."""
    if isinstance(generator, torch.Generator):
        with torch._C.DisableTorchFunction():
            state = generator.get_state()
            return state, state.numpy().tobytes()
    state = _state_of(generator)
    return state, pickle.dumps(state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return (generator.bit_generator if isinstance(generator, np.random.Generator) else generator).state


def _write(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState | torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.state = state
