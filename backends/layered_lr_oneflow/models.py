"""OneFlow models: built by name; the state of any of them is copied in and out by name."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Array, Arrays, Weights
from layered_lr.errors import BackendUnavailable
from layered_lr.models.mobilenet_v2 import LAST
from layered_lr.models.nn_modules import list_modules
from layered_lr_oneflow.dropout import MaskedDropout
from layered_lr_oneflow.eager_tensors import sync
from layered_lr_oneflow.flat_mobilenet_v2 import FlatMobileNetV2
from layered_lr_oneflow.oneflow_types import Module, Tensor, TensorType
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.translated_parts import GraphConstants


def build_model(model: str, num_classes: int, dropout: float, seed: int, device: str = "cpu") -> Module:
    """Make a new model that is known by name, on the CPU.

    Args:
        model: Its name in flowvision.
        num_classes: Outputs of its last layer.
        dropout: Probability in its head.
        seed: Of OneFlow's own generator.
        device: Where the model will run. On a CPU, ``"mobilenet_v2"`` is the faster ``FlatMobileNetV2``.

    Raises:
        BackendUnavailable: flowvision cannot be imported.
    """
    flow.manual_seed(seed)
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


def find_tensors(model: Module) -> dict[str, Tensor]:
    """Find every parameter and buffer, by every name that it has."""
    return {
        prefix + name: tensor
        for prefix, module in list_modules(model)
        for name, tensor in {**module._parameters, **module._buffers}.items()
        if tensor is not None and not isinstance(module, GraphConstants)
    }


def find_unsaved(model: Module) -> dict[str, Tensor]:
    """Find the buffers that ``state_dict()`` leaves out (``persistent=False``), by every name that they have."""
    return {
        prefix + name: module._buffers[name]
        for prefix, module in list_modules(model)
        for name in module._non_persistent_buffers_set
        if module._buffers.get(name) is not None and not isinstance(module, GraphConstants)
    }


def find_dtype(model: Module) -> TensorType:
    """Find the dtype of a model's floating parameters; float32 if it has none."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, flow.float32)


def load_state(model: Module, weights: Weights) -> None:
    """Copy arrays into the model's parameters and buffers of the same names; waits for OneFlow."""
    tensors = find_tensors(model)
    with flow.no_grad():
        for name, array in weights.items():
            tensors[name].copy_(flow.tensor(np.array(array)))
    sync()


def copy_state(model: Module) -> dict[str, Array]:
    """Copy the model's parameters and buffers to arrays, without those that ``state_dict()`` leaves out; waits.

    ``numpy()`` alone would share memory that training writes to.
    """
    unsaved = find_unsaved(model)
    sync()
    return {name: tensor.detach().numpy().copy() for name, tensor in find_tensors(model).items() if name not in unsaved}


def copy_all(model: Module) -> dict[str, Array]:
    """Copy every parameter and buffer to an array, by name; waits for OneFlow."""
    return {**copy_state(model), **copy_unsaved(model)}


def copy_unsaved(model: Module) -> dict[str, Array]:
    """Copy the buffers that ``state_dict()`` leaves out to arrays, by name; waits for OneFlow."""
    sync()
    return {name: tensor.detach().numpy().copy() for name, tensor in find_unsaved(model).items()}


def load_unsaved(model: Module, arrays: Arrays) -> None:
    """Give the model the buffers of ``copy_unsaved``; one that it lacks, or has in another shape, is made anew."""
    own, modules = find_unsaved(model), dict(list_modules(model))
    device = next((str(parameter.device) for parameter in model.parameters()), "cpu")
    for name, array in arrays.items():
        given = flow.tensor(np.array(array), device=device)
        if name in own and tuple(own[name].shape) == array.shape:
            with flow.no_grad():
                own[name].copy_(given)
        else:
            path, dot, leaf = name.rpartition(".")
            modules[path + dot]._buffers[leaf] = given
    sync()
