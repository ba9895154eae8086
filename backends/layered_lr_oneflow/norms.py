"""Gradient norms of past updates."""

from __future__ import annotations

from typing import Any

import numpy as np

from layered_lr.arrays import Float64

_BLOCK = 256


class NormHistory:
    """Each group's gradient norm at each update: tensors at first, fetched in blocks when they are long there.

    Args:
        groups: How many there are.
        ahead: The newest tensors that are not fetched before they are asked for.
    """

    def __init__(self, groups: int, ahead: int) -> None:
        self._ahead = ahead
        self._pending: list[Any] = []
        self._blocks = [np.empty((0, groups))]

    def append(self, norms: Any) -> None:
        """Note an update's norms, shape (groups,); None stands for zeros."""
        self._pending.append(norms)
        if len(self._pending) >= _BLOCK + self._ahead:
            self._fetch(_BLOCK)

    def table(self, start: int, stop: int) -> Float64:
        """The norms of updates ``start`` to ``stop - 1``, as far as there are any; waits for them."""
        self._fetch(len(self._pending))
        self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0][start:stop].copy()

    def _fetch(self, count: int) -> None:
        taken, self._pending = self._pending[:count], self._pending[count:]
        groups = self._blocks[0].shape[1]
        block = np.zeros((len(taken), groups))
        for row, norms in zip(block, taken, strict=True):
            if norms is not None:
                row[:] = norms.numpy()
        self._blocks.append(block)
