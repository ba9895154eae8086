"""What torch's optimizers keep of each parameter, as NumPy arrays by name and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.arrays import Slots
from layered_lr_torch.models import to_array

COUNTS: Final = ("step", "mu_product")
"""Slots that are one number of the parameter's, in float64 wherever they go; torch has them in float32."""

_SHAPE = (2, 3)  # of a parameter that stands for all of a param group; no slot has it by chance


def export_slots(
    optimizer: torch.optim.Optimizer, objects: Mapping[str, Any], without: Collection[str] = ()
) -> dict[str, dict[str, NDArray[Any]]]:
    """Copies of an optimizer's slots, by parameter and slot.

    Args:
        optimizer: torch's, or one of ``layered_lr_torch.paper_optimizers``.
        objects: The parameters by name.
        without: Names to leave out.
    """
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in objects.items():
        kept = optimizer.state.get(tensor, {})
        slots = {slot: _exported(slot, value) for slot, value in kept.items() if value is not None}
        if slots and name not in without:
            found[name] = slots
    return found


def new_slots(optimizer: torch.optim.Optimizer, objects: Mapping[str, Any], without: Collection[str] = ()) -> Slots:
    """What ``export_slots`` gives after a first update with gradients of zero: names, shapes, dtypes."""
    return {
        name: {slot: _shaped(slot, value, tensor) for slot, value in example.items()}
        for name, tensor, example in _with_examples(optimizer, objects)
        if name not in without
    }


def import_slots(
    optimizer: torch.optim.Optimizer, objects: Mapping[str, Any], slots: Slots, without: Collection[str] = ()
) -> None:
    """Put slots of the right names, shapes and dtypes in the place of the optimizer's; what has none begins anew."""
    for name, tensor, example in list(_with_examples(optimizer, objects)):
        optimizer.state.pop(tensor, None)
        if name not in without and slots.get(name):
            given = {slot: torch.from_numpy(np.array(array)) for slot, array in slots[name].items()}
            optimizer.state[tensor] = {slot: _placed(array, example.get(slot), tensor) for slot, array in given.items()}
    begin_sums(optimizer)


def begin_sums(optimizer: torch.optim.Optimizer) -> None:
    """Fill Adagrad's sums of parameters that have had no update.

    torch fills them in the constructor, from the constructor's argument, whatever the param group says.
    """
    if not isinstance(optimizer, torch.optim.Adagrad):
        return
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            state = optimizer.state[tensor]
            state.setdefault("step", torch.zeros((), dtype=torch.float32, device=_count_device(group, tensor)))
            if not state["step"].item():
                state["sum"] = torch.full_like(tensor, group["initial_accumulator_value"]).detach()


def _count_device(group: Mapping[str, Any], tensor: torch.Tensor) -> torch.device:
    return tensor.device if group["fused"] else torch.device("cpu")


def _with_examples(
    optimizer: torch.optim.Optimizer, objects: Mapping[str, Any]
) -> Iterator[tuple[str, Any, dict[str, torch.Tensor]]]:
    """Each parameter with the slots that the optimizer makes for one like it: dtypes and devices are these."""
    names = {id(tensor): name for name, tensor in objects.items()}
    for group in optimizer.param_groups:
        examples: dict[Any, dict[str, torch.Tensor]] = {}
        for tensor in group["params"]:
            kind = (tensor.dtype, tensor.device)
            if kind not in examples:
                examples[kind] = _example(type(optimizer), group, tensor)
            yield names[id(tensor)], tensor, examples[kind]


def _example(cls: Any, group: Mapping[str, Any], like: torch.Tensor) -> dict[str, torch.Tensor]:
    stand_in = torch.nn.Parameter(torch.zeros(_SHAPE, dtype=like.dtype, device=like.device))
    stand_in.grad = torch.zeros_like(stand_in)
    one = cls([{**group, "params": [stand_in]}], lr=group["lr"])
    one.step()
    return {slot: value for slot, value in one.state[stand_in].items() if value is not None}


def _exported(slot: str, value: Any) -> NDArray[Any]:
    array = to_array(value) if isinstance(value, torch.Tensor) else np.array(value)
    return array.astype(np.float64) if slot in COUNTS else array


def _shaped(slot: str, value: torch.Tensor, tensor: torch.Tensor) -> NDArray[Any]:
    array = _exported(slot, value)
    return np.broadcast_to(np.zeros((), array.dtype), tuple(tensor.shape) if array.shape == _SHAPE else array.shape)


def _placed(array: torch.Tensor, example: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
    """A slot as the optimizer makes it: of a parameter's shape it is laid out in memory as the parameter is.

    It has no example where it waits for other options than the param group has now.
    """
    if array.shape == tensor.shape and (example is None or example.shape == _SHAPE):
        return torch.empty_like(tensor, requires_grad=False).copy_(array)
    return array if example is None else array.to(example.device, example.dtype)
