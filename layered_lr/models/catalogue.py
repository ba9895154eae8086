"""The models that can be named: their parameters and initial weights, without any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Array
from layered_lr.errors import SpecError
from layered_lr.models import mobilenet_v2
from layered_lr.models.parameter import Parameter
from layered_lr.models.state_entry import Entry
from layered_lr.spelling import did_you_mean


class NamedModel(NamedTuple):
    """A model that the library knows by its name in torchvision and flowvision.

    Args:
        list_entries: Takes the number of classes; returns every parameter and buffer, in the model's order.
        check_images: Takes the batch size and (channels, height, width); refuses what the model cannot train on.
        dropout: The path of its dropout, and the probability there.
    """

    list_entries: Callable[[int], Iterable[Entry]]
    check_images: Callable[[int, tuple[int, int, int]], None]
    dropout: tuple[str, float]


# One line for each model. The backends build it by the same name.
MODELS: Mapping[str, NamedModel] = {
    mobilenet_v2.NAME: NamedModel(mobilenet_v2.list_entries, mobilenet_v2.check_images, mobilenet_v2.DROPOUT),
}


def list_parameters(model: str, num_classes: int) -> list[Parameter]:
    """Return the names and shapes of a model's parameters, in the model's order, for ``resolve``.

    Args:
        model: The name of the model.
        num_classes: Outputs of its last layer.

    Raises:
        SpecError: No model has that name.

    Example:
        >>> list_parameters("mobilenet_v2", num_classes=10)[-1][:2]
        ('classifier.1.bias', (10,))
    """
    entries = _find(model).list_entries(num_classes)
    return [Parameter(entry.name, entry.shape, types=entry.types) for entry in entries if entry.is_parameter]


def draw_initial_weights(model: str, num_classes: int, seed: int) -> dict[str, Array]:
    """Return a model's parameters and buffers before training, the same for every backend.

    Args:
        model: The name of the model.
        num_classes: Outputs of its last layer.
        seed: Of the random draws.

    Raises:
        SpecError: No model has that name.
    """
    rng = np.random.default_rng([seed, 0])
    return {entry.name: entry.draw(rng) for entry in _find(model).list_entries(num_classes)}


def check_images(model: str, batch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that a model cannot train on.

    Args:
        model: The name of the model.
        batch_size: Images in a batch.
        image_shape: (channels, height, width).

    Raises:
        SpecError: No model has that name, or it cannot train on such images.
    """
    _find(model).check_images(batch_size, image_shape)


def _find(model: str) -> NamedModel:
    if model not in MODELS:
        raise SpecError(
            f"model={model!r}: must be one of {', '.join(MODELS)}, or a callable that builds an nn.Module (in a "
            f"command or a recipe its import path, package.module:callable).{did_you_mean(model, MODELS)}"
        )
    return MODELS[model]
