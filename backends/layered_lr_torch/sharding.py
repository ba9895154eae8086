"""Tensors of which each process holds a part (``DTensor``), as ``fully_shard`` makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from layered_lr.arrays import Array, DividedArray
from layered_lr_torch.torch_types import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``; looks at names only, because torch may be built without them."""
    return type(tensor).__name__ == "DTensor" or isinstance(getattr(tensor, "_local_tensor", None), torch.Tensor)


def gather(tensor: Any) -> Tensor:
    """Return the whole tensor; of a ``DTensor`` every process has to ask for it at the same time."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return whole


def get_part(tensor: Any) -> Tensor:
    """Return the part that this process holds, in its own memory; of a tensor that is no ``DTensor`` all of it."""
    part: Tensor = tensor.detach()._local_tensor if is_sharded(tensor) else tensor
    return part


@torch.no_grad()
def measure_norms(tensors: Sequence[Any]) -> list[Tensor]:
    """Measure the L2 norm of each tensor, whole: one reduction for all that are divided among the same processes.

    Args:
        tensors: Plain ones, and ``DTensor``s. Every process has to ask for them at the same time.

    Returns:
        Tensors of shape (), which are equal in all processes.
    """
    norms = list(torch._foreach_norm([get_part(tensor) for tensor in tensors])) if tensors else []
    divided: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if not is_sharded(tensor):
            continue
        if tensor.device_mesh.ndim == 1 and tensor.placements[0].is_shard():
            divided.setdefault(tensor.device_mesh.get_group(), []).append(index)
        else:
            norms[index] = gather(torch.linalg.vector_norm(tensor))
    for group, indices in divided.items():
        squares = torch.stack([norms[index].double() for index in indices]).square()
        torch.distributed.all_reduce(squares, group=group)
        for index, norm in zip(indices, squares.sqrt().unbind(), strict=True):
            norms[index] = norm.to(norms[index].dtype)
    return norms


def layout_of(tensor: Any) -> object:
    """What divides a ``DTensor``: equal for those that are divided in the same way."""
    return tensor.device_mesh, tuple(tensor.placements)


def divide_array(tensor: Any, to_array: Callable[[Tensor], Array], to_tensor: Callable[[Array], Tensor]) -> Any:
    """Copy this process's part of a ``DTensor``, divided along one axis of processes, to a ``DividedArray``.

    Args:
        tensor: The ``DTensor``.
        to_array: Copies a tensor to an array.
        to_tensor: Copies an array to a tensor.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements, device = tensor.device_mesh, tensor.placements, get_part(tensor).device
    shape, stride = tensor.shape, torch.empty(tensor.shape, device="meta").stride()

    def gather_parts(part: Array) -> Array:
        own = to_tensor(part).to(device)
        whole: Any = DTensor.from_local(own, mesh, placements, run_check=False, shape=shape, stride=stride)
        return to_array(whole)

    def agree(is_so: bool) -> bool:
        found = torch.tensor(float(is_so), device=device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN, group=mesh.get_group())
        return bool(found.item())

    return DividedArray(to_array(get_part(tensor)), tuple(shape), layout_of(tensor), gather_parts, agree)


def copy_into(tensor: Any, whole: Tensor) -> None:
    """Copy a whole tensor into a tensor, of which this process may hold a part."""
    tensor.copy_(divide_like(whole.to(tensor.device, tensor.dtype), tensor) if is_sharded(tensor) else whole)


def divide_like(whole: Tensor, tensor: Any) -> Tensor:
    """Return a whole tensor, which every process has, divided as another one is; as it is, if that one is not."""
    if not is_sharded(tensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    divided: Tensor = distribute_tensor(whole, tensor.device_mesh, tensor.placements)
    return divided
