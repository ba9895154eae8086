"""Unpickling of CIFAR-10's batches; it can create NumPy arrays and nothing else."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

# Pickles name this function of NumPy by a private module, which NumPy 2 has moved; this is the function itself.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR-10 batch") from None


def load_arrays(content: bytes) -> dict[bytes, Any]:
    """Read the dictionary in a Python 2 pickle; its keys are bytes."""
    result: dict[bytes, Any] = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    return result
