"""Loads pretrained weights into a torch model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from layered_lr.arrays import Array
from layered_lr.models.nn_modules import parameters_of
from layered_lr.models.pretrained import fit_pretrained
from layered_lr_torch import models
from layered_lr_torch.torch_types import Module


def load_pretrained(model: Module, name: str, arrays: Mapping[str, Array], head: str) -> tuple[str, ...]:
    """Load weights into a model; its head keeps its own where it is for other classes.

    Args:
        model: Is changed.
        name: What the weights are called.
        arrays: As a file has them.
        head: The path of the layer that answers.

    Returns:
        The names of the parameters that keep their first values.

    Raises:
        SpecError: They are the weights of another model.
    """
    own = models.find_tensors(model)
    parameters = {each for parameter, _ in parameters_of(model) for each in parameter.names}
    fitted = fit_pretrained(name, _fit_positions(model, arrays), own, parameters, head)
    models.load_state(model, fitted.arrays)
    return fitted.new


def _fit_positions(model: Module, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Resize the positions of a vision transformer to the model's images, as torchvision does."""
    found = dict(arrays)
    own = dict(model.named_parameters())
    for name, array in arrays.items():
        key = next((each for each in own if each.endswith("pos_embedding") and name.endswith(each)), None)
        sides = [getattr(model, each, None) for each in ("image_size", "patch_size")]
        if key is None or array.shape == tuple(own[key].shape) or not all(isinstance(side, int) for side in sides):
            continue
        from torchvision.models.vision_transformer import interpolate_embeddings

        state = {"encoder.pos_embedding": torch.from_numpy(np.array(array))}
        found[name] = interpolate_embeddings(*sides, state)["encoder.pos_embedding"].numpy()
    return found
