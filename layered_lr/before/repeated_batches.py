"""The first batches of a run, again and again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from layered_lr.arrays import Float32, Targets
from layered_lr.data import Batches


class RepeatedBatches(Batches):
    """The batches of a run, of which training gets the first ones alone, each of them again and again.

    Args:
        batches: Of the run.
        count: How many of them.
        together: How many make an update.
        channels_last: As ``updates`` takes it.
    """

    def __init__(self, batches: Batches, count: int, together: int, channels_last: bool = False) -> None:
        self.__dict__.update(batches.__dict__)
        self.whole = batches
        updates = batches.updates(together, 0, channels_last)
        self.kept = list(islice(updates, -(-count // together)))

    def updates(
        self, together: int, start: int = 0, channels_last: bool = False
    ) -> Iterator[tuple[Float32, Targets, int]]:
        """Yield copies of the kept batches without end: a model may write into what it is given."""
        for images, labels, parts in islice(cycle(self.kept), start % len(self.kept), None):
            yield images.copy(order="K"), labels.copy(), parts

    @property
    def images(self) -> Float32:
        """All kept images, shape (N, C, H, W)."""
        return np.concatenate([images for images, _, _ in self.kept])

    @property
    def labels(self) -> Targets:
        """Their labels, shape (N,)."""
        return np.concatenate([labels for _, labels, _ in self.kept])
