"""What torch's optimizers keep of each parameter, copied to NumPy arrays by name and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch

from layered_lr.arrays import COUNTS, Array, Slots
from layered_lr_torch.models import copy_array_into, to_array, to_tensor
from layered_lr_torch.torch_types import Options, Parameters, ParameterState, ParamGroup, Tensor

_SIZES: Final = (2, 3, 5, 7, 11)
"""Sizes of a parameter that stands for those of the same number of dimensions; no slot has another size by chance."""

_BEGINS_AT_RATE: Final = (torch.optim.ASGD, torch.optim.Rprop)
"""Optimizers with a slot that begins at the rate of a parameter's first update: no slot before it means the same."""


def export_slots(
    optimizer: torch.optim.Optimizer,
    parameters: Parameters,
    without: Collection[str] = (),
    copy: Callable[[Tensor], Array] = to_array,
) -> dict[str, dict[str, Array]]:
    """Copy an optimizer's slots, by parameter and slot.

    Args:
        optimizer: torch's, or one of ``layered_lr_torch.paper_optimizers``.
        parameters: The parameters by name.
        without: Names to leave out.
        copy: Makes an array of a tensor.
    """
    found: dict[str, dict[str, Array]] = {}
    for name, tensor in parameters.items():
        state = optimizer.state.get(tensor, {})
        slots = {slot: _to_slot_array(slot, value, copy) for slot, value in state.items() if value is not None}
        if slots and name not in without:
            found[name] = slots
    return found


def new_slots(
    optimizer: torch.optim.Optimizer,
    parameters: Parameters,
    without: Collection[str] = (),
    groups: Sequence[ParamGroup] | None = None,
) -> Slots:
    """Make the slots that a first update with zero gradients would leave: names, shapes and dtypes are right.

    Args:
        optimizer: As in ``export_slots``.
        parameters: The parameters by name.
        without: Names to leave out.
        groups: With other hyperparameters than the optimizer's param groups have now; None takes those.
    """
    return {
        name: {slot: _make_new_slot(slot, value, tensor) for slot, value in example.items()}
        for name, tensor, example in pair_with_examples(optimizer, parameters, groups)
        if name not in without
    }


def import_slots(
    optimizer: torch.optim.Optimizer, parameters: Parameters, slots: Slots, without: Collection[str] = ()
) -> None:
    """Replace the optimizer's slots; parameters without slots begin anew.

    Args:
        optimizer: As in ``export_slots``.
        parameters: The parameters by name.
        slots: Of the right names, shapes and dtypes.
        without: Names of parameters that begin anew although they have slots.
    """
    for name, tensor, example in list(pair_with_examples(optimizer, parameters)):
        optimizer.state.pop(tensor, None)
        if name not in without and slots.get(name):
            optimizer.state[tensor] = {
                slot: _place_slot(slot, array, example.get(slot), tensor) for slot, array in slots[name].items()
            }
    begin_sums(optimizer)


def fit_states(optimizer: torch.optim.Optimizer, parameters: Parameters, without: Collection[str]) -> None:
    """Let states fit the options that the param groups have now.

    Slots that the options do not use are dropped, and slots that are missing begin at 0. A parameter without a state
    stays without.

    Args:
        optimizer: As in ``export_slots``.
        parameters: The parameters by name.
        without: Names of parameters whose states stay as they are.
    """
    for name, tensor, example in list(pair_with_examples(optimizer, parameters)):
        state = optimizer.state.get(tensor)
        if name in without or not state:
            continue
        kept = {slot: value for slot, value in state.items() if value is not None}
        if kept.keys() == example.keys():
            continue
        new = make_new_state(example, tensor, count=0.0)
        fitting = {slot: kept.get(slot, value) for slot, value in new.items()}
        if fitting:
            optimizer.state[tensor] = fitting
        else:
            del optimizer.state[tensor]
    begin_sums(optimizer)


def make_new_state(example: ParameterState, parameter: Tensor, count: float = 1.0) -> ParameterState:
    """Make the state that a parameter has before its first update.

    Args:
        example: Of ``pair_with_examples``.
        parameter: The parameter.
        count: Where ``mu_product`` and ``mu`` begin.
    """
    return {slot: _make_new_tensor(slot, value, parameter, count) for slot, value in example.items()}


def _make_new_tensor(slot: str, example: Any, parameter: Tensor, count: float) -> Any:
    if not isinstance(example, torch.Tensor):  # SparseAdam's count
        return type(example)(0)
    start = count if slot in ("mu_product", "mu") else 0.0
    if example.ndim == parameter.ndim and example.shape == _sizes_of(parameter) and slot not in COUNTS:
        return torch.zeros_like(parameter).detach()
    return torch.full(_fit_shape(tuple(example.shape), parameter), start, dtype=example.dtype, device=example.device)


def begins_at_rate(optimizer: torch.optim.Optimizer, group: ParamGroup) -> bool:
    """Whether a state whose count is 0 has to be dropped, so that it begins at the rate of the first update."""
    return issubclass(find_class(optimizer, group), _BEGINS_AT_RATE)


def find_class(optimizer: torch.optim.Optimizer, group: ParamGroup) -> type[torch.optim.Optimizer]:
    """Return the class that updates a param group: the optimizer's own, unless it is a ``MixedOptimizer``."""
    find: Any = getattr(optimizer, "find_class", None)
    found: type[torch.optim.Optimizer] = type(optimizer) if find is None else find(group)
    return found


def begin_sums(optimizer: torch.optim.Optimizer) -> None:
    """Fill Adagrad's sums of parameters that have had no update.

    torch fills them in the constructor from the constructor's argument, and ignores what the param group says.
    """
    for group in optimizer.param_groups:
        is_adagrad = issubclass(find_class(optimizer, group), torch.optim.Adagrad)
        for tensor in group["params"] if is_adagrad else ():
            state = optimizer.state[tensor]
            state.setdefault("step", torch.zeros((), dtype=torch.float32, device=_find_count_device(group, tensor)))
            if not state["step"].item():
                state["sum"] = torch.full_like(tensor, group["initial_accumulator_value"]).detach()


def _find_count_device(group: Options, tensor: Tensor) -> torch.device:
    return tensor.device if group["fused"] else torch.device("cpu")


def pair_with_examples(
    optimizer: torch.optim.Optimizer, parameters: Parameters, groups: Sequence[ParamGroup] | None = None
) -> Iterator[tuple[str, Tensor, ParameterState]]:
    """Each parameter with the slots that the optimizer makes for a similar one: dtypes and devices are the same."""
    names = {id(tensor): name for name, tensor in parameters.items()}
    for group in optimizer.param_groups if groups is None else groups:
        examples: dict[tuple[torch.dtype, torch.device, int], ParameterState] = {}
        for tensor in group["params"]:
            kind = (tensor.dtype, tensor.device, tensor.ndim)
            if id(tensor) not in names:  # of a param group that the user has added
                continue
            if kind not in examples:
                examples[kind] = _make_example(find_class(optimizer, group), group, tensor)
            yield names[id(tensor)], tensor, examples[kind]


def _make_example(cls: Any, group: ParamGroup, like: Tensor) -> ParameterState:
    """The slots of a small parameter after an update with zero gradients; one of whole numbers has none."""
    if not (like.is_floating_point() or like.is_complex()):
        return {}
    stand_in = torch.nn.Parameter(torch.zeros(_sizes_of(like), dtype=like.dtype, device=like.device))
    stand_in.grad = torch.zeros_like(stand_in)
    if cls is torch.optim.SparseAdam:
        stand_in.grad = stand_in.grad.to_sparse()
    one = cls([{**group, "params": [stand_in]}], lr=group["lr"])
    one.step()
    return {slot: value for slot, value in one.state[stand_in].items() if value is not None}


def _to_slot_array(slot: str, value: object, copy: Callable[[Tensor], Array] = to_array) -> Array:
    array = copy(value) if isinstance(value, torch.Tensor) else np.array(value)
    return array.astype(np.float64) if slot in COUNTS else array


def _sizes_of(parameter: Tensor) -> tuple[int, ...]:
    """Sizes of a small parameter of the same number of dimensions."""
    return tuple(_SIZES[place % len(_SIZES)] for place in range(parameter.ndim))


def _fit_shape(shape: tuple[int, ...], parameter: Tensor) -> tuple[int, ...]:
    """The shape of a parameter's slot, from that of the small parameter's."""
    if len(shape) != parameter.ndim:
        return shape
    own = zip(shape, _sizes_of(parameter), parameter.shape, strict=True)
    return tuple(size if found == small else found for found, small, size in own)


def _make_new_slot(slot: str, example: Tensor, parameter: Tensor) -> Array:
    array = _to_slot_array(slot, example)
    shape = () if slot in COUNTS else _fit_shape(array.shape, parameter)
    return np.broadcast_to(np.zeros((), array.dtype), shape)


def _place_slot(slot: str, array: Array, example: Any, parameter: Tensor) -> Any:
    """A slot as the optimizer makes it; one of the parameter's shape has the parameter's memory layout.

    There is no example where the slot waits for a phase whose options differ from those that the param group has now.
    """
    if isinstance(example, int | float):  # SparseAdam's count
        return type(example)(array.item())
    is_whole = example is None or example.shape == _sizes_of(parameter)
    if slot not in COUNTS and is_whole and array.shape == tuple(parameter.shape):
        placed = torch.empty_like(parameter, requires_grad=False)
        copy_array_into(placed, array)
        return placed
    given = to_tensor(array)
    return given if example is None else given.to(example.device, example.dtype)
