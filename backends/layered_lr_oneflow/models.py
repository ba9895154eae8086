"""OneFlow models: built by name or by the user's callable, filled and read by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.mobilenet_v2 import LAST
from layered_lr.models.nn_modules import framework_of
from layered_lr_oneflow.dropout import MaskedDropout
from layered_lr_oneflow.flat_mobilenet_v2 import FlatMobileNetV2
from layered_lr_oneflow.runtime import flow


def build(model: str | Callable[[], Any], num_classes: int, dropout: float, seed: int, device: str = "cpu") -> Any:
    """See ``layered_lr.backend.base.Backend.build``; on a CPU, a MobileNetV2 built by name is ``flattened``'s.

    Args:
        model: As there, like the next three.
        num_classes: As there.
        dropout: As there.
        seed: As there.
        device: Where it will run; it is not brought there.
    """
    flow.manual_seed(seed)
    if not isinstance(model, str):
        made = model()
        if framework_of(made) != "oneflow":
            raise SpecError(
                f"model: the callable made a {type(made).__name__}; OneFlow backends need a oneflow.nn.Module."
            )
        return made
    if model == "mobilenet_v2" and device == "cpu":
        return FlatMobileNetV2(num_classes, MaskedDropout(dropout, LAST))
    try:
        import flowvision
    except ImportError as error:
        raise BackendUnavailable(
            "oneflow-eager",
            f"takes model {model!r} from flowvision, which cannot be imported: {error}",
            "Install it with: pip install 'layered-lr[oneflow]'.",
        ) from None
    made = getattr(flowvision.models, model)(num_classes=num_classes)
    # flowvision fixes the probability at 0.2, torchvision takes an argument
    made.classifier[0] = MaskedDropout(dropout, made.classifier[1].in_features)
    return made


def tensors(model: Any) -> dict[str, Any]:
    """Every parameter and buffer by every name that it has."""
    own = {**model._parameters, **model._buffers}
    found = {name: tensor for name, tensor in own.items() if tensor is not None}
    for prefix, child in model._modules.items():
        if child is not None:
            found |= {f"{prefix}.{name}": tensor for name, tensor in tensors(child).items()}
    return found


def dtype(model: Any) -> Any:
    """Of a model's floating parameters; float32 without any."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, flow.float32)


def load(model: Any, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays into the model's state of the same names."""
    state = model.state_dict()
    with flow.no_grad():
        for name, array in weights.items():
            state[name].copy_(flow.tensor(np.array(array)))
    sync()


def state(model: Any) -> dict[str, NDArray[Any]]:
    """Copies of the model's parameters and buffers; ``numpy()`` alone would alias memory that training writes to."""
    sync()
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def sync() -> None:
    """Wait for everything that OneFlow has been asked to do."""
    flow._oneflow_internal.eager.Sync()
