"""The layers whose weights ``initialise`` draws, and how torch's own layers draw theirs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.models.answering_layer import is_of_computed, path_of_layer
from layered_lr.models.parameter import Parameter

_DRAWN: Final = ("Linear", "_ConvNd", "Conv1d", "Conv2d", "Conv3d")
_NOT_DRAWN: Final = ("Norm", "Embedding")
"""Parts of the names of classes whose weights are no matrices, though they may have several axes."""

_NORMED: Final = {"weight_v": "weight_g", "original1": "original0"}
"""What a weight normalisation calls the direction of a weight, and the lengths that it gives to its parts."""

_TORCHS: Final = ("Linear", "Bilinear", "MultiheadAttention", "_ConvNd", "Conv", "ConvTranspose")
"""Beginnings of the names of torch's classes; those of convolutions go on with 1d, 2d or 3d."""


class DrawnLayer(NamedTuple):
    """A layer whose weight is drawn.

    Args:
        weight: What is drawn: the weight, or of a layer with a weight normalisation its direction.
        lengths: The parameter that has the lengths of the direction's parts; None where there is none.
        bias: The name of the bias beside it, which the layer may not have.
        types: Names of the layer's class and of those that it is derived from; empty where they are not known.
        is_computed: Whether the layer computes its weight in another way, so that nothing that is drawn would be it.
    """

    weight: Parameter
    lengths: Parameter | None
    bias: str
    types: tuple[str, ...]
    is_computed: bool

    @property
    def is_torchs(self) -> bool:
        """Whether torch has such a layer, or nobody knows of which class it is."""
        return not self.types or any(re.sub(r"[123]d$", "", name) in _TORCHS for name in self.types)

    def find_lengths(self, drawn: Float64) -> Float64:
        """The lengths of the parts of a weight, so that the layer computes that weight of its direction."""
        assert self.lengths is not None
        shape = self.lengths.shape
        axes = tuple(axis for axis in range(drawn.ndim) if not shape or shape[axis] == 1)
        return np.asarray(np.sqrt(np.sum(np.square(drawn), axes))).reshape(shape)


def list_drawn(parameters: Sequence[Parameter], modules: Mapping[str, Sequence[str]]) -> list[DrawnLayer]:
    """List the layers that are linear or convolutions: by their modules' kinds, else by names and shapes.

    Args:
        parameters: In model order.
        modules: The names of the classes of the model's modules, by path; empty where they are not known.
    """
    by_name = {each.name: each for each in parameters}
    return [layer for each in parameters if (layer := _read(each, by_name, modules)) is not None]


def _read(
    weight: Parameter, by_name: Mapping[str, Parameter], modules: Mapping[str, Sequence[str]]
) -> DrawnLayer | None:
    computed = is_of_computed(weight.name)
    if len(weight.shape) < 2 or not (computed or weight.name.endswith("weight")):
        return None
    path = path_of_layer(weight.name)
    types = tuple(modules.get(path, ())) or (() if "ParametrizationList" in weight.types else weight.types)
    is_known = any(each in _DRAWN for each in types)  # also a table that is tied to a linear layer
    if not is_known and any(word in each for each in types for word in _NOT_DRAWN):
        return None
    if not computed:
        return DrawnLayer(weight, None, weight.name.removesuffix("weight") + "bias", types, False)
    around, _, last = weight.name.rpartition(".")
    lengths = by_name.get(f"{around}.{_NORMED[last]}") if last in _NORMED else None
    if lengths is None and last == "original0":
        return None  # the lengths themselves
    if last == "original1" and "_WeightNorm" not in modules.get(f"{around}.0", ()):
        lengths = None
    return DrawnLayer(weight, lengths, f"{path}.bias", types, lengths is None)


def draw_as_torch(layer: DrawnLayer, rng: np.random.Generator) -> tuple[Float64, float]:
    """Draw the weight of a layer as torch's layer of that class does (``reset_parameters``).

    Args:
        layer: Of which torch has the class.
        rng: To draw from.

    Returns:
        The weight, and the bound between which torch draws the bias evenly.
    """
    shape = layer.weight.shape
    inputs = math.prod(shape[1:])
    if "MultiheadAttention" in layer.types:
        bound = math.sqrt(6 / max(inputs + shape[0], 1))
        return rng.uniform(-bound, bound, shape), 0.0
    bound = 1 / math.sqrt(max(shape[1] if "Bilinear" in layer.types else inputs, 1))
    in_attention = "NonDynamicallyQuantizableLinear" in layer.types
    return rng.uniform(-bound, bound, shape), 0.0 if in_attention else bound
