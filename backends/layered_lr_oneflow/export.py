"""Writes a plain ``state_dict`` as OneFlow's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layered_lr.arrays import Array, Arrays
from layered_lr.errors import Unsupported
from layered_lr_oneflow.eager_tensors import sync
from layered_lr_oneflow.runtime import flow

_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")


def write_state_dict(folder: Path, arrays: Arrays) -> None:
    """Make the folder that ``oneflow.load`` reads: tensors by name, for ``load_state_dict``.

    Args:
        folder: That does not exist yet.
        arrays: Weights by name.

    Raises:
        Unsupported: OneFlow has no tensors of a dtype.
        OSError: It cannot be written.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise Unsupported(
                f"export: {name!r} is {array.dtype}, which OneFlow's files cannot hold. Export a .safetensors."
            )
    flow.save({name: flow.tensor(np.array(array)) for name, array in arrays.items()}, str(folder))
    sync()


def read_state_dict(folder: Path) -> dict[str, Array]:
    """Read what ``write_state_dict`` wrote."""
    tensors = flow.load(str(folder))
    sync()
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}
