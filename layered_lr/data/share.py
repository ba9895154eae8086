"""Which images of a batch one of several processes takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layered_lr.arrays import Int64


@dataclass(frozen=True)
class Share:
    """The part of every batch that belongs to one of several processes.

    Args:
        rank: Which process, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    def rows(self, images: int, parts: int) -> Int64:
        """The places of this process's images in an update's whole batch, shape ``(images / count,)``.

        Args:
            images: Images of the update, of all processes.
            parts: How many batches they are, one after the other. Of each the process takes as many.
        """
        each = images // parts // self.count
        places = np.arange(images).reshape(parts, self.count, each)
        return places[:, self.rank].ravel()

    def run_of(self, images: int) -> slice | None:
        """The images that this process answers to, one after the other; None where the processes have no equal runs.

        Args:
            images: How many there are for all processes.

        Example:
            >>> Share(1, 2).run_of(6), Share(1, 2).run_of(5)
            (slice(3, 6, None), None)
        """
        each, rest = divmod(images, self.count)
        return None if rest else slice(each * self.rank, each * (self.rank + 1))


WHOLE = Share()
"""All images: of a process that trains alone."""
