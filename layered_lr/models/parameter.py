"""What is known of a parameter without its framework."""

from __future__ import annotations

from typing import NamedTuple


class Parameter(NamedTuple):
    """A trainable array of a model.

    Args:
        name: Its first dotted path in the model, e.g. ``features.0.0.weight``.
        shape: As the framework has it; a convolution's weight is OIHW.
        aliases: Its other paths, where the same array stands in several places (tied weights).
        dtype: ``"float32"``, ``"float64"`` or what else the framework calls it.
    """

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    dtype: str = "float32"

    @property
    def names(self) -> tuple[str, ...]:
        """Every path of this parameter, the first one first."""
        return (self.name, *self.aliases)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count
