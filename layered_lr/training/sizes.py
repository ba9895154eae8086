"""Sizes of training images, as an option of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from layered_lr.counts import read_whole_number
from layered_lr.training.option import TRAINING, Refused, option, option_class, whole_number

_LARGEST_SIDE = 1 << 14
MOST_SIZES = 16  # each is a graph of its own on oneflow-graph, and a compilation on torch-compile


def _sides(value: Any) -> tuple[int, ...]:
    words = f"2 to {MOST_SIZES} different whole numbers of pixels, each from 1 to {_LARGEST_SIDE}"
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        raise Refused(words)
    sides = []
    for part in (each for some in parts for each in (some.split(",") if isinstance(some, str) else [some])):
        text = part.strip() if isinstance(part, str) else ""
        sides.append(int(text) if text.isdecimal() and len(text) < 9 else read_whole_number(part))
    known = tuple(side for side in sides if side is not None and 1 <= side <= _LARGEST_SIDE)
    if len(known) < len(sides) or len(set(known)) < len(known) or not 2 <= len(known) <= MOST_SIZES:
        raise Refused(words)
    return known


@option_class
class Sizes:
    """Sizes of training images, one of which is drawn from the seed for every few updates.

    The draw depends on the seed and the number of the update alone, so it is the same on every backend and after a
    resume. The test images keep the run's ``image_size``. The model must take images of each size, as those with a
    global pooling before the head do.

    Example:
        >>> import layered_lr as ll
        >>> ll.Sizes([96, 128, 160], every=10)
        Sizes(sides=(96, 128, 160), every=10)
    """

    __called__: ClassVar[str] = "Sizes"

    sides: Sequence[int] = option(
        default=(),
        help="Pixels of a side of training images: two sizes or more, such as 96,128,160.",
        check=_sides,
        allowed=f"2 to {MOST_SIZES} numbers of pixels",
        meaning=TRAINING,
        flag="--sizes",
        metavar="N,N,…",
        kind="list",
    )
    every: int = option(
        default=1,
        help="For how many updates a size is kept.",
        check=whole_number(1),
        meaning=TRAINING,
        flag="--sizes-every",
        kind="int",
    )

    @staticmethod
    def of(value: Any) -> Sizes | None:
        """What ``sizes=...`` stands for: the value itself, the sides, a table of its fields, or None.

        Example:
            >>> Sizes.of([64, 96]) == Sizes([64, 96]) == Sizes.of({"sides": [64, 96]})
            True
        """
        if value is None or isinstance(value, Sizes):
            return value
        if isinstance(value, Mapping):
            return Sizes(**value)
        if isinstance(value, list | tuple | str):
            return Sizes(value)  # type: ignore[arg-type]
        raise Refused("ll.Sizes([...], every=...), a list of numbers of pixels, or None")
