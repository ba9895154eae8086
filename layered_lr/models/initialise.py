"""Initialises the weights of any model by a named method, drawn in NumPy from the seed: the same on every backend."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import numpy as np

from layered_lr.arrays import Array, Float64, Weights
from layered_lr.errors import SpecError
from layered_lr.models.heads import expand_words
from layered_lr.models.matching import select_parameters
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


_DRAWN: Final = ("Linear", "_ConvNd", "Conv1d", "Conv2d", "Conv3d")
_NOT_DRAWN: Final = ("Norm", "Embedding")
"""Parts of the names of classes whose weights are no matrices, though they may have several axes."""


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
) -> dict[str, Array]:
    """Return a model's state with weights that are drawn by named methods.

    A method draws the weights of linear layers and convolutions, which are those of two dimensions or more that no
    normalisation and no embedding holds. The bias beside such a weight becomes 0; ``"torch"`` draws it, as torch's
    layers do. All else stays, such as tables of positions. What is drawn for an array depends on the seed and its name
    alone.

    Args:
        start: Every parameter and buffer.
        parameters: In model order.
        chosen: A method for all, or methods by pattern (as in ``Group.match``); the first that matches counts.
        seed: Of the run.
        drawn: The names of parameters that may be drawn; None is all.

    Raises:
        SpecError: A pattern matches no such weight.
    """
    table = chosen if isinstance(chosen, Mapping) else {"*": chosen}
    weights = [each for each in parameters if _is_weight(each) and (drawn is None or each.name in drawn)]
    if not weights:
        raise SpecError(
            f"initialise={chosen!r}: there is no weight of a linear layer or a convolution to draw"
            f"{'' if drawn is None else ', since the pretrained weights give all of them'}. Leave it out."
        )
    methods: dict[str, str] = {}
    for pattern, method in table.items():
        advice = (
            " It draws weights of linear layers and convolutions, of two dimensions or more, and only those that no "
            "pretrained weights give."
        )
        for path in expand_words((pattern,), parameters):
            for name in select_parameters("initialise", path, weights, advice):
                methods.setdefault(name, method)
    by_name = {name: each for each in parameters for name in each.names}
    made = dict(start)
    for each in weights:
        if each.name not in methods:
            continue
        rng = np.random.default_rng([seed, 1, zlib.crc32(each.name.encode())])
        method = methods[each.name]
        _put(made, each, draw_weight(method, each.shape, rng))
        bias = by_name.get(each.name.removesuffix("weight") + "bias")
        if bias is not None and len(bias.shape) == 1 and (drawn is None or bias.name in drawn):
            bound = 1 / math.sqrt(max(_fans(each.shape)[0], 1)) if method == "torch" else 0.0
            _put(made, bias, rng.uniform(-bound, bound, bias.shape))
    return made


def _is_weight(parameter: Parameter) -> bool:
    """Whether it is the weight of a linear layer or a convolution: by its module's kind, else by name and shape."""
    if len(parameter.shape) < 2 or not parameter.name.endswith("weight"):
        return False
    if any(each in _DRAWN for each in parameter.types):  # also a table that is tied to a linear layer
        return True
    return not any(word in each for each in parameter.types for word in _NOT_DRAWN)


def _put(made: dict[str, Array], parameter: Parameter, array: Float64) -> None:
    for name in parameter.names:
        if name in made:
            made[name] = array.astype(made[name].dtype)
