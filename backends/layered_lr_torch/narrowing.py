"""Sees whether a model that runs in float64 computes parts in a narrower dtype, as ``x.float()`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class NarrowingWatch(TorchDispatchMode):
    """Looks at every operator inside of a ``with`` block, also at those of backward passes.

    Attributes:
        has_narrowed: Whether one has made narrower numbers of float64 ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.has_narrowed: bool = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operator, and look at what it takes and gives."""
        out = func(*args, **(kwargs or {}))
        if not self.has_narrowed and torch.float64 in _dtypes_of(args):
            self.has_narrowed = any(dtype in _NARROW for dtype in _dtypes_of(out))
        return out


def _dtypes_of(values: Any) -> list[torch.dtype]:
    return [value.dtype for value in tree_leaves(values) if isinstance(value, torch.Tensor) and value.ndim]
