"""What modules keep beside their tensors (``get_extra_state``), as arrays of the bytes that ``torch.save`` writes.

They are read by ``torch.load(weights_only=True)``, which runs no code: tensors, numbers, texts, and lists, tuples, sets
and dicts of them.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import torch

from layered_lr.arrays import Array, Arrays
from layered_lr.errors import CheckpointError, Unsupported
from layered_lr.files import one_line
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.torch_types import Module

NAME: Final = "_extra_state"
"""How torch's ``state_dict()`` calls it, after the module's path."""


def copy_extra_states(model: Module) -> dict[str, Array]:
    """Copy the extra state of every module that has one, by name; of what cannot be saved nothing is copied."""
    written = {prefix + NAME: _write(module) for prefix, module in _find_modules(model)}
    return {name: array for name, array in written.items() if isinstance(array, np.ndarray)}


def load_extra_states(model: Module, arrays: Arrays) -> None:
    """Give the modules the extra states of ``copy_extra_states``.

    Raises:
        CheckpointError: One cannot be read.
    """
    for prefix, module in _find_modules(model):
        array = arrays.get(prefix + NAME)
        if array is None:
            continue
        try:
            state = torch.load(io.BytesIO(np.asarray(array).tobytes()), weights_only=True)
        except Exception as error:  # torch, pickle and zipfile raise many kinds of errors
            raise CheckpointError(f"{prefix + NAME}: not a readable extra state: {one_line(error)}") from None
        module.set_extra_state(state)


def check_extra_states(model: Module) -> None:
    """Refuse a model with an extra state that cannot be saved.

    Raises:
        Unsupported: A module has no ``set_extra_state``, or its state holds an object of another kind.
    """
    for prefix, module in _find_modules(model):
        why = _write(module)
        if isinstance(why, str):
            raise Unsupported(
                f"module {prefix.rstrip('.') or type(module).__name__!r}: what its get_extra_state() returns cannot be "
                f"saved: {why} Let it return tensors, numbers, texts, or lists and dicts of them, or train without "
                "checkpoints."
            )


def _find_modules(model: Module) -> list[tuple[str, Module]]:
    plain = torch.nn.Module.get_extra_state
    return [(prefix, module) for prefix, module in list_modules(model) if type(module).get_extra_state is not plain]


def _write(module: Module) -> Array | str:
    """The bytes of a module's extra state, shape (bytes,), or why it has none."""
    if type(module).set_extra_state is torch.nn.Module.set_extra_state:
        return "the module has no set_extra_state()."
    file = io.BytesIO()
    state: Any = module.get_extra_state()
    try:
        torch.save(state, file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds of errors
        return f"{one_line(error).split('. ')[0].rstrip('.')[:200]}."
    return np.frombuffer(file.getvalue(), np.uint8).copy()
