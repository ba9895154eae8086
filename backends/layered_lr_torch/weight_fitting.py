"""Loads pretrained weights into a torch model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from layered_lr.arrays import Array
from layered_lr.models.nn_modules import parameters_of
from layered_lr.models.pretrained import Fitted, fit_pretrained
from layered_lr_torch import models
from layered_lr_torch.torch_types import Module, Tensor


def load_pretrained(model: Module, name: str, arrays: Mapping[str, Array], heads: Sequence[str]) -> tuple[str, ...]:
    """Load weights into a model; its head keeps its own where it is for other classes.

    Args:
        model: Is changed.
        name: What the weights are called.
        arrays: As a file has them.
        heads: The paths of the layers that answer.

    Returns:
        The names of the parameters that keep their first values.

    Raises:
        SpecError: They are the weights of another model.
    """
    fitted = fit(model, name, arrays, heads)
    models.load_state(model, fitted.arrays)
    return fitted.new


def fit(model: Module, name: str, arrays: Mapping[str, Array], heads: Sequence[str]) -> Fitted:
    """Find the arrays that belong to a model, which may be one without numbers.

    Args:
        model: Stays as it is.
        name: What the weights are called.
        arrays: As a file has them.
        heads: The paths of the layers that answer.

    Raises:
        SpecError: They are the weights of another model.
    """
    own = {each: _without_numbers(tensor) for each, tensor in models.find_tensors(model).items()}
    parameters = {each for parameter, _ in parameters_of(model) for each in parameter.names}
    return fit_pretrained(name, _fit_size(model, arrays), own, parameters, heads)


def _without_numbers(tensor: Tensor) -> Array:
    """An array of a tensor's shape and dtype, which takes no memory."""
    return np.broadcast_to(models.to_array(torch.zeros((), dtype=tensor.dtype)), tuple(tensor.shape))


def _fit_size(model: Module, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Resize what depends on the size of the images, such as positions, as the model's own library does."""
    if type(model).__module__.startswith("timm."):
        return _filter_by_timm(model, arrays)
    return _fit_positions(model, arrays)


def _filter_by_timm(model: Module, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Let the function by which timm loads the weights of such a model fit those that have another shape."""
    own = models.find_tensors(model)
    other = [name for name, array in arrays.items() if name in own and array.shape != tuple(own[name].shape)]
    fit_state = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if not other or fit_state is None:
        return arrays
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm and torch about themselves
            fitted = fit_state({name: models.to_tensor(array) for name, array in arrays.items()}, model)
    except Exception:  # it is for timm's own files; what does not fit is then said by its shape
        return arrays
    changed = {name: models.to_array(fitted[name]) for name in other if isinstance(fitted.get(name), torch.Tensor)}
    return {**arrays, **changed}


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
