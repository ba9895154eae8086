"""The layer that answers: as a forward pass has shown it, else by the names and shapes of a model's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layered_lr.models.nn_modules import Module
from layered_lr.models.parameter import Parameter

OWN_HEADS: Final = "layered_lr_answers"
"""The attribute of a model that has the paths of the layers that answer, where a forward pass has shown them."""

_COMPUTED = ".parametrizations."  # of torch's parametrize, between a layer's path and what its weight is computed of


def find_head(parameters: Sequence[Parameter]) -> str | None:
    """Return the path of the layer that answers: known, or the last linear layer or 1x1 convolution.

    Args:
        parameters: In model order.

    Returns:
        The module's path, the last one of several; None where there is no such layer, or where it is the whole model.

    Example:
        >>> find_head([Parameter("conv1.weight", (8, 3, 3, 3)), Parameter("fc.weight", (10, 8))])
        'fc'
    """
    if known := list_answering(parameters):
        return known[-1]
    for parameter in reversed(parameters):
        path, last = path_of_layer(parameter.name), parameter.name.rpartition(".")[2]
        if path and (last == "weight" or is_of_computed(parameter.name)) and is_linear(parameter.shape):
            return path
    return None


def mark_answering(model: Module, source: object) -> None:
    """Let a model know which of its layers answer, where what has made it has found that out.

    Args:
        model: Of either framework, whose modules have the names that they have in what was made.
        source: What has made it.
    """
    if found := getattr(source, "answering", None):
        object.__setattr__(model, OWN_HEADS, tuple(found))


def list_answering(parameters: Sequence[Parameter]) -> list[str]:
    """List the paths of the layers that a forward pass has shown to answer; empty where nobody has looked.

    Example:
        >>> list_answering([Parameter("fc.weight", (10, 8), answers=True), Parameter("gate.weight", (8, 8))])
        ['fc']
    """
    paths = (path_of_layer(parameter.name) for parameter in parameters if parameter.answers)
    return list(dict.fromkeys(path for path in paths if path))


def path_of_layer(name: str) -> str:
    """Return the path of the layer that a parameter belongs to, also where its weight is computed of others.

    Example:
        >>> path_of_layer("fc.weight"), path_of_layer("fc.parametrizations.weight.original1")
        ('fc', 'fc')
    """
    return name.partition(_COMPUTED)[0] if _COMPUTED in name else name.rpartition(".")[0]


def is_of_computed(name: str) -> bool:
    """Whether a layer's weight is computed of a parameter of this name: by torch's weight and spectral normalisations.

    Example:
        >>> is_of_computed("fc.weight_v"), is_of_computed("fc.parametrizations.weight.original"), is_of_computed("w.g")
        (True, True, False)
    """
    return name.rpartition(".")[2] in ("weight_v", "weight_orig") or f"{_COMPUTED}weight.original" in name


def is_linear(shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape is one of a linear layer, (out, in), or of a 1x1 convolution.

    Example:
        >>> is_linear((10, 64)), is_linear((10, 64, 1, 1)), is_linear((10, 64, 3, 3))
        (True, True, False)
    """
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
