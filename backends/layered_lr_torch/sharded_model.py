"""Divides a model's parameters among the processes that train it, by torch's ``fully_shard`` (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch.utils._pytree import tree_map

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.optimizers import LBFGS, Adafactor, Rprop, SparseAdam
from layered_lr.plans.plan import Plan
from layered_lr_torch.processes import TorchProcesses
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.torch_types import Module, Tensor

_CONTAINERS: Final = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
"""Modules that are opened: each of their children is called by itself."""
_UNABLE: Final = (Adafactor, Rprop, SparseAdam, LBFGS)
"""Optimizers that torch's parts of tensors (``DTensor``) cannot carry."""
_LEAST_SHARE: Final = 0.01
"""A block has at least this share of the model's numbers; what is left stays with the model."""


def shard(plan: Plan, model: Module, processes: TorchProcesses, device: torch.device) -> None:
    """Let each process hold a part of every parameter from now on; names, buffers and values stay.

    Each block is gathered before its forward and its backward pass, and given up after it. What no block has is
    gathered with the model itself. ``find_blocks`` says what a block is, ``find_undivided`` which parameters stay
    whole. Blocks are brought to the device one after the other, each of them divided before the next, so that the
    device never holds the whole model.

    Args:
        plan: Of the whole run.
        model: In main memory or on the device, with the weights that the training begins with. It is changed in place.
        processes: All of them have the model with the same weights.
        device: Where the model trains.

    Raises:
        Unsupported: The model cannot be divided.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise Unsupported(
            f"shard=True: torch {torch.__version__} has no fully_shard. Install torch 2.6 or newer, or leave shard out."
        ) from None
    check_optimizers(plan)
    _check(model)
    for _, tensor in parameters_of(model):
        tensor.data = tensor.data.contiguous()  # of channels_last, and of views: fully_shard takes no others
    undivided: set[Any] = set(find_undivided(model))
    for tensor in (*undivided, *model.buffers()):
        tensor.data = tensor.data.to(device)  # fully_shard brings the others
    mesh = init_device_mesh(device.type, (processes.share.count,))
    for module in (*find_blocks(model), model):
        module.register_forward_hook(_give_no_views)
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=undivided)


def _give_no_views(module: Module, given: object, output: Any) -> Any:
    """Let what a block answers have memory of its own: torch gathers no weights for what is done in place to a view."""

    def copy(each: Any) -> Any:
        is_view = isinstance(each, torch.Tensor) and each.requires_grad and each._is_view()
        return each.clone() if is_view else each

    return tree_map(copy, output)


def find_undivided(model: Module) -> list[Tensor]:
    """Find the parameters of which each process keeps a whole copy, because ``fully_shard`` cannot divide them.

    They are scalars and empty ones, those of another dtype than most of the model's numbers, and those that a module
    also holds in a plain attribute, of which ``fully_shard`` would not know.
    """
    tensors = [tensor for _, tensor in parameters_of(model)]
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    floating = {dtype: size for dtype, size in sizes.items() if dtype.is_floating_point}
    usual = max(floating, key=lambda dtype: floating[dtype], default=None)
    held = {id(value) for module in model.modules() for value in _attributes(module)}
    return [
        tensor
        for tensor in tensors
        if tensor.ndim == 0 or not tensor.numel() or tensor.dtype != usual or id(tensor) in held
    ]


def _attributes(module: Module) -> Iterator[Any]:
    """What a module holds in plain attributes, also inside of lists and dicts."""
    if isinstance(module, torch.nn.RNNBase):  # which keeps its list up to date by itself
        return
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list | tuple | set):
            yield from value
        else:
            yield value


def find_blocks(model: Module) -> list[Module]:
    """Find the modules that are gathered one by one, in the model's order.

    They are the model's children, where ``Sequential``, ``ModuleList`` and ``ModuleDict`` stand for their own children,
    and so does a class of others than torch that has more than half of the model's numbers. A block has at least a
    hundredth of the model's numbers, and no parameter that is used outside of it too.
    """
    total = sum(tensor.numel() for tensor in model.parameters())
    uses: dict[int, int] = {}
    for module in _all_places(model):
        for tensor in module._parameters.values():
            if tensor is not None:
                uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    found: dict[int, Module] = {}
    for block in _candidates(model, total):
        inside: dict[int, int] = {}
        for module in _all_places(block):
            for tensor in module._parameters.values():
                if tensor is not None:
                    inside[id(tensor)] = inside.get(id(tensor), 0) + 1
        size = sum(tensor.numel() for tensor in block.parameters())
        if size and size >= _LEAST_SHARE * total and all(uses[key] == count for key, count in inside.items()):
            found[id(block)] = block
    return list(found.values())


def _all_places(model: Module) -> Iterator[Module]:
    """Every module at each of its places."""
    yield model
    for child in model._modules.values():
        if child is not None:
            yield from _all_places(child)


def _candidates(model: Module, total: int) -> Iterator[Module]:
    for child in model._modules.values():
        if child is None:
            continue
        size = sum(tensor.numel() for tensor in child.parameters())
        is_of_torch = type(child).__module__.startswith("torch.nn.")
        is_opened = isinstance(child, _CONTAINERS) or (not is_of_torch and 2 * size > total)
        if is_opened and any(each is not None for each in child._modules.values()):
            yield from _candidates(child, total)
        elif not isinstance(child, _CONTAINERS):
            yield child


def _check(model: Module) -> None:
    """Refuse what cannot be divided.

    Raises:
        Unsupported: See the messages.
    """
    if any(is_sharded(tensor) for tensor in model.parameters()):
        raise Unsupported("shard=True: the model is sharded already. Give it as it was before fully_shard.")
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise Unsupported(
                f"shard=True: {name!r} has sparse gradients, which cannot be divided. Use sparse=False in it, or leave "
                "shard out."
            )


def check_optimizers(plan: Plan) -> None:
    """Refuse optimizers that cannot update parts of parameters.

    Raises:
        Unsupported: A group has one.
    """
    for each in (plan, *plan.phase_plans):
        for group in each.groups:
            kind = type(group.optimizer)
            if kind in _UNABLE and group.parameters:
                raise Unsupported(
                    f"shard=True: group {group.name!r} trains with {kind.__name__}, which cannot update a part of a "
                    "parameter. Give it another optimizer, such as AdamW, or leave shard out."
                )


def uncalled_error() -> Unsupported:
    """Return what to raise where a model uses parameters that no process has gathered."""
    return Unsupported(
        "shard=True: the model uses the weights of a module without calling the module, so that they are not gathered. "
        "Let forward() call its modules, or leave shard out."
    )


class Shards:
    """A model of which each process holds a part: torch's ``fully_shard`` gathers weights and averages gradients.

    It stands where a ``Replica`` stands in training without ``shard``.

    Args:
        model: After ``shard``.
        processes: That train it.

    Attributes:
        forward: The model's forward pass in training.
    """

    def __init__(self, model: Module, processes: TorchProcesses) -> None:
        self.forward: Module = model
        self._processes = processes
        self._buffers = list(model.buffers())
        self._undivided = [tensor for _, tensor in parameters_of(model) if not is_sharded(tensor)]

    def part(self, is_last: bool) -> AbstractContextManager[Any]:
        """Around the passes of a part of a batch: its gradient is averaged at once, so that no process holds all."""
        return nullcontext()

    def end_backward(self) -> None:
        """Average the gradients of the parameters that are not divided."""
        self._processes.average([tensor.grad for tensor in self._undivided if tensor.grad is not None])

    def unify_buffers(self) -> None:
        """Let all processes have the buffers of the first one's, such as the statistics of batch normalisations."""
        if self._buffers:
            self._processes.take_from_first(self._buffers)
