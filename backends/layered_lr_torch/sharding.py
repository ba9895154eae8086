"""Tensors of which each process holds a part (``DTensor``), as ``fully_shard`` makes them."""

from __future__ import annotations

from typing import Any

import torch

from layered_lr_torch.torch_types import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``; looks at names only, because torch may be built without them."""
    return type(tensor).__name__ == "DTensor" or isinstance(getattr(tensor, "_local_tensor", None), torch.Tensor)


def gather(tensor: Any) -> Tensor:
    """Return the whole tensor; of a ``DTensor`` every process has to ask for it at the same time."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return whole


def copy_into(tensor: Any, whole: Tensor) -> None:
    """Copy a whole tensor into a tensor, of which this process may hold a part."""
    if is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        whole = distribute_tensor(whole.to(tensor.device, tensor.dtype), tensor.device_mesh, tensor.placements)
    tensor.copy_(whole)
