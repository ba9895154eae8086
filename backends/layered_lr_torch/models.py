"""torch models: built by name or by the user's callable; their state is copied in and out by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from layered_lr.arrays import Array, Weights
from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.nn_modules import framework_of
from layered_lr.models.user_models import make_model
from layered_lr_torch.dropout import mask_dropout
from layered_lr_torch.torch_types import Module, Tensor


def build_model(model: str | Callable[[], Any], num_classes: int, dropout: float, seed: int) -> Module:
    """Make a new model.

    Args:
        model: A model's name in torchvision, or a callable without arguments that returns a ``torch.nn.Module``.
        num_classes: Of a model known by name.
        dropout: Probability in the head of a model known by name.
        seed: Of torch's own generator, from which the callable draws.

    Raises:
        SpecError: The callable makes something else than a torch module.
        BackendUnavailable: torchvision cannot be imported.
    """
    torch.manual_seed(seed)
    if not isinstance(model, str):
        made: Module = make_model(model)
        if framework_of(made) != "torch":
            raise SpecError(
                f"model: the callable made a {type(made).__name__}; torch backends need a torch.nn.Module. Let it "
                "return one, or use a backend of the model's framework."
            )
        return made
    try:
        import torchvision
    except ImportError as error:
        raise BackendUnavailable(
            "torch-eager",
            f"takes model {model!r} from torchvision, which cannot be imported: {error}",
            "Install it with: pip install 'layered-lr[torch]'.",
        ) from None
    return mask_dropout(getattr(torchvision.models, model)(num_classes=num_classes, dropout=dropout))


def find_memory_format(model: Module) -> torch.memory_format:
    """The memory layout that images should have for this model.

    ``torch.channels_last`` if all 4-D parameters are laid out so and at least one of them is not also contiguous. Else
    ``torch.contiguous_format``: a model may take its activations apart by ``view``, which needs that.
    """
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]
    first = [weight.is_contiguous() for weight in weights]
    only_last = [is_last and not is_first for is_last, is_first in zip(last, first, strict=True)]
    return torch.channels_last if any(only_last) and all(last) else torch.contiguous_format


def load_state(model: Module, weights: Weights) -> None:
    """Copy arrays into the model's parameters and buffers of the same names."""
    state = model.state_dict()
    with torch.no_grad():
        for name, array in weights.items():
            state[name].copy_(torch.from_numpy(np.array(array)))


def copy_state(model: Module) -> dict[str, Array]:
    """Copy the model's parameters and buffers to arrays, by name."""
    return {name: to_array(tensor) for name, tensor in model.state_dict().items()}


def to_array(tensor: Tensor) -> Array:
    """Copy a tensor to an array in C order, whatever the tensor's memory format is."""
    array: Array = tensor.detach().cpu().numpy().copy()
    return array
