"""torch models: built by name or by the user's callable, filled and read by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.nn_modules import framework_of
from layered_lr_torch.dropout import with_masks


def build(model: str | Callable[[], Any], num_classes: int, dropout: float, seed: int) -> torch.nn.Module:
    """See ``layered_lr.backend.base.Backend.build``."""
    torch.manual_seed(seed)
    if not isinstance(model, str):
        made = model()
        if framework_of(made) != "torch":
            raise SpecError(f"model: the callable made a {type(made).__name__}; torch backends need a torch.nn.Module.")
        return made  # type: ignore[no-any-return]
    try:
        import torchvision
    except ImportError as error:
        raise BackendUnavailable(
            "torch-eager",
            f"takes model {model!r} from torchvision, which cannot be imported: {error}",
            "Install it with: pip install 'layered-lr[torch]'.",
        ) from None
    return with_masks(getattr(torchvision.models, model)(num_classes=num_classes, dropout=dropout))  # type: ignore[no-any-return]


def memory_format(model: torch.nn.Module) -> torch.memory_format:
    """The layout of images that goes with a model's weights.

    ``torch.channels_last`` where 4-D parameters are laid out so and none is the other way (some are both). Else
    ``torch.contiguous_format``: a model may take its activations apart by ``view``, which needs that.
    """
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]
    first = [weight.is_contiguous() for weight in weights]
    only_last = [is_last and not is_first for is_last, is_first in zip(last, first, strict=True)]
    return torch.channels_last if any(only_last) and all(last) else torch.contiguous_format


def load(model: torch.nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays into the model's state of the same names."""
    state = model.state_dict()
    with torch.no_grad():
        for name, array in weights.items():
            state[name].copy_(torch.from_numpy(np.array(array)))


def state(model: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """Copies of the model's parameters and buffers."""
    return {name: to_array(tensor) for name, tensor in model.state_dict().items()}


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy of a tensor, in C's order whatever the tensor's memory format."""
    return tensor.detach().cpu().numpy().copy()
