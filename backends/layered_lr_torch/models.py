"""torch models: built by name or by the user's callable; their state is copied in and out by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from layered_lr.arrays import BFLOAT16, Array, Arrays, DividedArray, Weights, find_bfloat16
from layered_lr.backend.gradient_watch import grad_mode_error
from layered_lr.errors import BackendUnavailable, SpecError, Unsupported
from layered_lr.models.nn_modules import framework_of, list_modules
from layered_lr.models.user_models import make_model
from layered_lr_torch.dropout import mask_dropout
from layered_lr_torch.extra_states import NAME as EXTRA_STATE
from layered_lr_torch.extra_states import check_extra_states, copy_extra_states, load_extra_states
from layered_lr_torch.sharding import copy_into, divide_array, gather, get_part, is_sharded, layout_of
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
        check_made(made)
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


def check_made(made: Module) -> None:
    """Refuse a model of the user's that cannot train.

    Raises:
        SpecError: It was made where torch keeps no gradients, or no numbers; or gradients are off now.
    """
    if not torch.is_grad_enabled():
        raise grad_mode_error()
    check_tensors(made)


def check_tensors(made: Module) -> None:
    """Refuse a model whose tensors cannot train, or have no numbers.

    Raises:
        SpecError: It was made inside ``torch.inference_mode()``, or on the device ``meta``.
    """
    for name, tensor in (*made.named_parameters(), *made.named_buffers()):
        if not is_lazy(tensor) and tensor.is_inference():
            raise SpecError("model: it was made inside torch.inference_mode(), and cannot train. Make it outside.")
        if not is_lazy(tensor) and tensor.device.type == "meta":
            raise SpecError(
                f"model: {name!r} is on the device 'meta', and has no numbers. Make the model on 'cpu'; or give it "
                "numbers first, with model.to_empty(device='cpu') and load_state_dict()."
            )


def cast(model: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Bring a model to a device, and what is float32 or complex64 in it to a dtype, or to the complex one of its width.

    Tensors of all other dtypes keep them.
    """
    new = {torch.float32: dtype, torch.complex64: dtype.to_complex()}
    model._apply(lambda tensor: tensor.to(device, new.get(tensor.dtype)))
    return model


def find_dtype(model: Module) -> torch.dtype:
    """Find the dtype that a model's images have: that of its first floating parameter, or of a complex one's parts."""
    dtypes = [parameter.dtype for parameter in model.parameters()]
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    complex_too = [dtype.to_real() for dtype in dtypes if dtype.is_complex]
    return next(iter(floating + complex_too), torch.float32)


def find_widest_dtype(model: Module) -> torch.dtype:
    """Find the dtype that holds the numbers of every floating parameter of a model."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return functools.reduce(torch.promote_types, dtypes, find_dtype(model))


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


def find_tensors(model: Module, persistent: bool = True) -> dict[str, Tensor]:
    """Find the model's parameters and buffers, by every name that they have as members of modules.

    ``state_dict()`` may have other names (hooks of a wrapper), and more than tensors (``get_extra_state``).

    Args:
        model: The model.
        persistent: False finds instead the buffers that ``state_dict()`` leaves out.
    """
    found: dict[str, Tensor] = {}
    for prefix, module in list_modules(model):
        left_out = module._non_persistent_buffers_set
        own = {**(module._parameters if persistent else {}), **module._buffers}
        found |= {
            prefix + name: tensor
            for name, tensor in own.items()
            if tensor is not None and (name in left_out) != persistent
        }
    return found


def load_state(model: Module, weights: Weights) -> None:
    """Copy arrays into the model's parameters and buffers of the same names."""
    tensors = find_tensors(model)
    with torch.no_grad():
        for name, array in weights.items():
            try:
                copy_array_into(tensors[name], array)
            except RuntimeError as error:  # such as a buffer that is expanded over its own memory
                raise SpecError(
                    f"model: {name!r} cannot be written to: {str(error).splitlines()[0]} Give it memory of its own "
                    "(clone())."
                ) from None


def copy_state(model: Module, copy: Callable[[Tensor], Array] | None = None) -> dict[str, Array]:
    """Copy the model's parameters and buffers to arrays, by name, without buffers that ``state_dict()`` leaves out.

    Args:
        model: The model.
        copy: Makes an array of a tensor; None is ``to_array``.
    """
    copy = copy or to_array
    return {name: copy(tensor) for name, tensor in find_tensors(model).items()}


def copy_unsaved(model: Module) -> dict[str, Array]:
    """Copy the buffers that ``state_dict()`` leaves out (``persistent=False``) to arrays, and extra states, by name."""
    return {**copy_buffers(model), **copy_extra_states(model)}


def copy_buffers(model: Module) -> dict[str, Array]:
    """Copy the buffers that ``state_dict()`` leaves out to arrays, by name."""
    return {name: to_array(tensor) for name, tensor in find_tensors(model, persistent=False).items()}


def load_unsaved(model: Module, arrays: Arrays) -> None:
    """Give the model what ``copy_unsaved`` copied; a buffer that it lacks, or has in another shape, is made anew."""
    tensors, modules = find_tensors(model, persistent=False), dict(list_modules(model))
    load_extra_states(model, arrays)
    for name, array in arrays.items():
        if name.rpartition(".")[2] == EXTRA_STATE:
            continue
        given = to_tensor(array)
        tensor = tensors.get(name)
        if tensor is not None and tensor.shape == given.shape:
            with torch.no_grad():
                tensor.copy_(given)
            continue
        path, dot, leaf = name.rpartition(".")
        device = next((some.device for some in model.parameters()), torch.device("cpu"))
        modules[path + dot]._buffers[leaf] = given.to(device)


def to_array(tensor: Tensor) -> Array:
    """Copy a tensor to an array of its dtype in C order, whatever the tensor's memory format is."""
    whole = gather(tensor.detach()).cpu()
    if whole.dtype == torch.bfloat16 and whole.layout == torch.strided:
        return whole.contiguous().view(torch.int16).numpy().copy().view(find_bfloat16())
    try:
        array: Array = whole.resolve_conj().resolve_neg().numpy().copy(order="C")
    except (TypeError, RuntimeError) as error:  # sparse, quantised, float8, lazy
        raise Unsupported(
            f"model: a tensor of dtype {whole.dtype} and layout {whole.layout} cannot become an array: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return array


def to_state_array(tensor: Tensor) -> Array:
    """As ``to_array``; of a tensor that is divided among processes, a ``DividedArray`` of them."""
    array: Any = divide_array(tensor, to_array, to_tensor) if is_sharded(tensor) else to_array(tensor)
    return array  # type: ignore[no-any-return]


def copy_array_into(tensor: Tensor, array: Array) -> None:
    """Copy an array into a tensor, of which this process may hold a part."""
    if isinstance(array, DividedArray):
        if is_sharded(tensor) and array.layout == layout_of(tensor) and array.shape == tuple(tensor.shape):
            get_part(tensor).copy_(to_tensor(array.part))
            return
        array = array.gather()
    copy_into(tensor, to_tensor(array))


def to_tensor(array: Array) -> Tensor:
    """Copy an array to a tensor of its dtype on the CPU."""
    if array.dtype.name == BFLOAT16:
        return torch.from_numpy(np.array(array, order="C").view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def check_savable(model: Module) -> None:
    """Refuse a model whose state cannot be saved whole.

    Raises:
        Unsupported: A module has an extra state of objects that no file can hold, or a tensor that NumPy cannot hold.
    """
    check_extra_states(model)
    copy_state(model)
    copy_unsaved(model)
