"""Gradient norms of past updates."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float64
from layered_lr_oneflow.oneflow_types import Tensor

_BLOCK = 256


class NormHistory:
    """Each group's gradient norm at each update. Norms are tensors at first, and are fetched in blocks later.

    Args:
        groups: How many groups there are.
        ahead: How many of the newest updates are not fetched before ``table`` asks for them.
    """

    def __init__(self, groups: int, ahead: int) -> None:
        self._ahead = ahead
        self._pending: list[Tensor | None] = []
        self._blocks = [np.empty((0, groups))]

    def append(self, norms: Tensor | None) -> None:
        """Note the norms of one update, shape (groups,); None stands for zeros."""
        self._pending.append(norms)
        if len(self._pending) >= _BLOCK + self._ahead:
            self._fetch(_BLOCK)

    def table(self, start: int, stop: int) -> Float64:
        """Each group's norm at updates ``start`` to ``stop - 1``, shape (updates, groups); waits for them.

        Rows end with the last update that was noted.
        """
        self._fetch(len(self._pending))
        self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0][start:stop].copy()

    def _fetch(self, count: int) -> None:
        fetched, self._pending = self._pending[:count], self._pending[count:]
        groups = self._blocks[0].shape[1]
        block = np.zeros((len(fetched), groups))
        for row, norms in zip(block, fetched, strict=True):
            if norms is not None:
                row[:] = norms.numpy()
        self._blocks.append(block)
