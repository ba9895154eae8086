"""Initialises the weights of any model by a named method, drawn in NumPy from the seed: the same on every backend."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import numpy as np

from layered_lr.arrays import Array, Float64, Weights
from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import path_of_layer
from layered_lr.models.drawn_layers import DrawnLayer, draw_as_torch, list_drawn
from layered_lr.models.heads import expand_words
from layered_lr.models.matching import nothing_left, select_parameters
from layered_lr.models.parameter import Parameter

Draw = Callable[[np.random.Generator, tuple[int, ...]], Float64]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many numbers an output is made of, and how many an input goes into, as ``torch.nn.init`` counts them."""
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _kaiming_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    return rng.normal(0, math.sqrt(2 / _fans(shape)[0]), shape)


def _kaiming_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    bound = math.sqrt(6 / _fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def _xavier_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    return rng.normal(0, math.sqrt(2 / sum(_fans(shape))), shape)


def _xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    bound = math.sqrt(6 / sum(_fans(shape)))
    return rng.uniform(-bound, bound, shape)


def _torch(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    bound = 1 / math.sqrt(_fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    rows, columns = shape[0], math.prod(shape[1:])
    drawn = rng.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diagonal(r))  # so that every orthogonal matrix is equally likely
    return np.ascontiguousarray(q if rows >= columns else q.T).reshape(shape)


def _svd(rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    rows, columns = shape[0], math.prod(shape[1:])
    left, _, right = np.linalg.svd(rng.normal(size=(rows, columns)), full_matrices=False)
    scale = math.sqrt(2 / _fans(shape)[0] * max(rows, columns))
    made: Float64 = scale * (left @ right)
    return made.reshape(shape)


METHODS: Final[Mapping[str, Draw]] = {
    "kaiming": _kaiming_normal,
    "kaiming_normal": _kaiming_normal,
    "kaiming_uniform": _kaiming_uniform,
    "xavier": _xavier_uniform,
    "xavier_normal": _xavier_normal,
    "xavier_uniform": _xavier_uniform,
    "orthogonal": _orthogonal,
    "svd": _svd,
    "torch": _torch,
}
"""Each as ``torch.nn.init`` draws it with its defaults; ``torch`` is what torch's layers draw themselves.

``svd`` is a normal draw whose singular values are made equal, so large that the mean square is kaiming's.
"""


def draw_weight(method: str, shape: tuple[int, ...], rng: np.random.Generator) -> Float64:
    """Draw the weight of a layer.

    Args:
        method: A key of ``METHODS``.
        shape: Two dimensions or more, outputs first.
        rng: To draw from.

    Returns:
        float64 of that shape; zeros where it is empty.

    Example:
        >>> draw_weight("orthogonal", (2, 2), np.random.default_rng(0)).shape
        (2, 2)
    """
    return METHODS[method](rng, shape) if math.prod(shape) else np.zeros(shape)


def initialise(
    start: Weights,
    parameters: Sequence[Parameter],
    chosen: str | Mapping[str, str],
    seed: int,
    drawn: Collection[str] | None = None,
    modules: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Array]:
    """Return a model's state with weights that are drawn by named methods.

    A method draws the weights of linear layers and convolutions, which are those of two dimensions or more that no
    normalisation and no embedding holds. The bias beside such a weight becomes 0; ``"torch"`` draws it, as torch's
    layers do. Of a layer with a weight normalisation, the weight that it computes is drawn. All else stays, such as
    tables of positions. What is drawn for an array depends on the seed and its name alone.

    Args:
        start: Every parameter and buffer.
        parameters: In model order.
        chosen: A method for all, or methods by pattern (as in ``Group.match``); the first that matches counts.
        seed: Of the run.
        drawn: The names of parameters that may be drawn; None is all.
        modules: The names of the classes of the model's modules, by path; None where they are not known.

    Raises:
        SpecError: A pattern matches no such weight, or only those of patterns before it; or a chosen weight is one that
            its layer computes, or for ``"torch"`` one of a layer that torch does not have.
    """
    table = chosen if isinstance(chosen, Mapping) else {"*": chosen}
    layers = {each.weight.name: each for each in list_drawn(parameters, modules or {})}
    layers = {name: each for name, each in layers.items() if drawn is None or name in drawn}
    if not layers:
        raise SpecError(
            f"initialise={chosen!r}: there is no weight of a linear layer or a convolution to draw"
            f"{'' if drawn is None else ', since the weights that were given have all of them'}. Leave it out."
        )
    methods = _choose_methods(table, parameters, layers)
    by_name = {name: each for each in parameters for name in each.names}
    made = dict(start)
    for name, method in methods.items():
        layer = layers[name]
        _check(layer, method)
        rng = np.random.default_rng([seed, 1, zlib.crc32(name.encode())])
        if method == "torch":
            array, bound = draw_as_torch(layer, rng)
        else:
            array, bound = draw_weight(method, layer.weight.shape, rng), 0.0
        _put(made, layer.weight, array)
        if layer.lengths is not None:
            _put(made, layer.lengths, layer.find_lengths(array))
        bias = by_name.get(layer.bias)
        if bias is not None and len(bias.shape) == 1 and (drawn is None or bias.name in drawn):
            _put(made, bias, rng.uniform(-bound, bound, bias.shape))
    return made


def check_methods(chosen: str | Mapping[str, str], parameters: Sequence[Parameter]) -> None:
    """Refuse methods for weights that a model does not have.

    Args:
        chosen: As for ``initialise``.
        parameters: In model order.

    Raises:
        SpecError: A pattern matches no such weight, or only those of patterns before it.
    """
    table = chosen if isinstance(chosen, Mapping) else {"*": chosen}
    _choose_methods(table, parameters, {each.weight.name: each for each in list_drawn(parameters, {})})


def _choose_methods(
    table: Mapping[str, str], parameters: Sequence[Parameter], layers: Mapping[str, DrawnLayer]
) -> dict[str, str]:
    """The method for each layer's weight, by name, in model order."""
    weights = [each.weight for each in layers.values()]
    advice = (
        " It draws weights of linear layers and convolutions, of two dimensions or more, and only those that no "
        "given weights have."
    )
    methods: dict[str, str] = {}
    for pattern, method in table.items():
        paths = expand_words((pattern,), parameters)
        found = set[str]().union(*(select_parameters("initialise", path, weights, advice) for path in paths))
        if not found - methods.keys():
            raise nothing_left("initialise", pattern, method)
        methods.update(dict.fromkeys(found - methods.keys(), method))
    return {name: methods[name] for name in layers if name in methods}


def _check(layer: DrawnLayer, method: str) -> None:
    name = layer.weight.name
    if layer.is_computed:
        raise SpecError(
            f"initialise={method!r}: the weight of {path_of_layer(name)!r} is computed of {name!r}, so that what is "
            "drawn would not be the weight. Choose the other layers by pattern, and let the model draw this one."
        )
    if method == "torch" and not layer.is_torchs:
        raise SpecError(
            f"initialise='torch': {name!r} is the weight of a {layer.types[0]}, which torch does not have. Choose "
            "torch's layers by pattern, or another method for this one."
        )


def _put(made: dict[str, Array], parameter: Parameter, array: Float64) -> None:
    for name in parameter.names:
        if name in made:
            made[name] = np.asarray(array).astype(made[name].dtype)
