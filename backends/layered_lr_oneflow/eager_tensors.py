"""Waiting for OneFlow, and writing into tensors that a graph reads, between its calls."""

from __future__ import annotations

from layered_lr.arrays import Array
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow


def sync() -> None:
    """Wait for everything that OneFlow has been asked to do."""
    flow._oneflow_internal.eager.Sync()


def write_tensor(target: Tensor, array: Array) -> None:
    """Write an array into an eager tensor, in the tensor's dtype, between two calls of a graph; waits for it.

    The values are right without the wait too. With it, OneFlow 0.9 crashed less on a machine with six times as many
    busy threads as cores (two graphs, 2,400 writes: 0 of 48 runs before their end, 3 of 24 without). The cause of the
    crashes is the race that ``runtime.schedule_as_batch`` describes.
    """
    target.copy_(flow.tensor(array, dtype=target.dtype, device=target.device))
    sync()
