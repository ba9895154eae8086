"""A parameter of a model, without its framework: name, shape and dtype."""

from __future__ import annotations

from typing import NamedTuple


class Parameter(NamedTuple):
    """A trainable array of a model.

    Args:
        name: Its first dotted path in the model, e.g. ``features.0.0.weight``.
        shape: The framework's shape; OIHW for the weight of a convolution.
        aliases: Its other paths, if the same array is used in several places (tied weights).
        dtype: The framework's name of the dtype, such as ``"float32"``.
        requires_grad: False where the user froze it by hand: a plan has a rate for it, and no update moves it.
        types: Names of the class of the module that holds it, and of those that the class is derived from, such as
            ``("LayerNorm2d", "LayerNorm")``; empty where only names and shapes are known. They do not count when
            parameters are compared.
        depth: The number of its layer, from 0 next to the images to the head, where the model itself counts layers, as
            timm's models do (``group_matcher``). It does not count when parameters are compared.
        answers: Whether it belongs to a layer that answers, where a forward pass has shown which does. It does not
            count when parameters are compared.

    Example:
        >>> import layered_lr as ll
        >>> ll.Parameter("head.weight", (10, 64)).elements
        640
    """

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    dtype: str = "float32"
    requires_grad: bool = True
    types: tuple[str, ...] = ()
    depth: int | None = None
    answers: bool = False

    def __eq__(self, other: object) -> bool:
        return tuple(self[:5]) == tuple(other[:5]) if isinstance(other, Parameter) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self[:5]))

    @property
    def names(self) -> tuple[str, ...]:
        """Every path of this parameter, ``name`` first."""
        return (self.name, *self.aliases)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count
