"""How a backend applies a plan's rates: decided before anything runs, by group."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Lowering(NamedTuple):
    """How one group's rate reaches the weights.

    Args:
        schedule: ``"constant"``: compiled in, never changes. ``"native"``: the framework's own scheduler, exact
            here. ``"table"``: the framework's own table of rates by step. ``"host"``: set from Python before
            each update. ``"dynamic"``: update ops inside a graph read it from a buffer.
        lr_scale: ``"native"``: the framework multiplies. ``"folded"``: multiplied into the rate beforehand.
        detail: The scheduler's name, or the table's size.
        update: What makes the update: the framework's own optimizer or ops of this library's, in words.
    """

    schedule: Literal["constant", "native", "table", "host", "dynamic"]
    lr_scale: Literal["native", "folded"]
    detail: str = ""
    update: str = ""

    @property
    def how(self) -> str:
        """The schedule's part, in words."""
        words = {
            "constant": "constant",
            "native": "native",
            "table": "native table",
            "host": "set each step",
            "dynamic": "dynamic",
        }
        return f"{words[self.schedule]} {self.detail}".rstrip()

    def __str__(self) -> str:
        return f"{self.how}, {'native lr_scale' if self.lr_scale == 'native' else 'lr_scale folded in'}"
