"""Which images of a batch one of several processes takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Int64
from layered_lr.errors import DataError


class Part(NamedTuple):
    """The images of an update that one process takes: those from ``start`` to ``stop - 1``.

    Args:
        start: The first one's place in the update.
        stop: The place after the last one.
        weight: What this process's mean over its images is multiplied with, so that the mean over all processes is that
            of all images. 0 where there are fewer images than processes and this one has none of its own: it takes the
            first image then, which counts nothing, so that it can join in what the others do together.
    """

    start: int
    stop: int
    weight: float

    @property
    def is_stand_in(self) -> bool:
        """Whether this process has no image of its own."""
        return self.weight == 0

    def check(self, images: int) -> None:
        """Refuse another number of images, which would be a wrong weight for them.

        Raises:
            DataError: There are more or fewer.
        """
        if images != self.stop - self.start:
            raise DataError(
                f"this process's part of the batch has {images} images, and {self.stop - self.start} were made for it: "
                "a callback must leave their number as it is."
            )


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
        """The places of this process's images in an update's whole batch, shape ``(n,)``.

        Args:
            images: Images of the update, of all processes.
            parts: How many batches of one size they are, one after the other. Of each the process takes as many.
        """
        own = self.part(images // parts)
        return np.arange(images).reshape(parts, -1)[:, own.start : own.stop].ravel()

    def part(self, images: int) -> Part:
        """The images that this process takes; the first processes have one more where they cannot have as many each.

        Args:
            images: Of the update, or of a batch of it, for all processes; >= 1.

        Example:
            >>> Share(0, 2).part(5), Share(1, 2).part(1)
            (Part(start=0, stop=3, weight=1.2), Part(start=0, stop=1, weight=0.0))
        """
        each, more = divmod(images, self.count)
        start = each * self.rank + min(self.rank, more)
        stop = start + each + (self.rank < more)
        if start == stop:
            return Part(0, 1, 0.0)
        return Part(start, stop, (stop - start) * self.count / images)

    def part_of_update(self, images: int, whole: int | None) -> tuple[int, Part]:
        """The images of an update in all processes, and this one's part of them.

        Args:
            images: That this process has.
            whole: Those of all processes; None where each has as many.

        Raises:
            DataError: This process has another number of images than its part.
        """
        whole = images * self.count if whole is None else whole
        own = self.part(whole)
        own.check(images)
        return whole, own

    def run_of(self, images: int) -> slice | None:
        """The images that this process answers to, one after the other; None where the processes have no equal runs.

        Args:
            images: How many there are for all processes.

        Example:
            >>> Share(1, 2).run_of(6), Share(1, 2).run_of(5)
            (slice(3, 6, None), None)
        """
        own = self.part(images)
        return None if images % self.count else slice(own.start, own.stop)


WHOLE = Share()
"""All images: of a process that trains alone."""
