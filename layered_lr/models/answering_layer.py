"""The layer that answers, by the names and shapes of a model's parameters."""

from __future__ import annotations

from collections.abc import Sequence

from layered_lr.models.parameter import Parameter


def find_head(parameters: Sequence[Parameter]) -> str | None:
    """Return the path of the layer that answers: the last linear layer, or the last convolution of 1x1.

    Args:
        parameters: In model order.

    Returns:
        The module's path; None where there is no such layer, or where it is the whole model.

    Example:
        >>> find_head([Parameter("conv1.weight", (8, 3, 3, 3)), Parameter("fc.weight", (10, 8))])
        'fc'
    """
    for parameter in reversed(parameters):
        path, _, last = parameter.name.rpartition(".")
        if path and last == "weight" and is_linear(parameter.shape):
            return path
    return None


def is_linear(shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape is one of a linear layer, (out, in), or of a 1x1 convolution.

    Example:
        >>> is_linear((10, 64)), is_linear((10, 64, 1, 1)), is_linear((10, 64, 3, 3))
        (True, True, False)
    """
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
