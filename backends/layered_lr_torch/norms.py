"""Gradient norms of past updates."""

from __future__ import annotations

import numpy as np
import torch

from layered_lr.arrays import Float64
from layered_lr.backend.series import Series
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_torch.torch_types import Module, Tensor


class NormHistory:
    """Each group's gradient norm at each update. Norms stay on the device until ``fetch`` or ``table`` asks for them.

    Args:
        plan: Its groups are the columns of ``table``.
        model: Its parameters, in their order, have the norms.
    """

    def __init__(self, plan: Plan, model: Module) -> None:
        self._owners = np.array([plan.group_of[parameter.name] for parameter, _ in parameters_of(model)])
        self._groups = len(plan.groups)
        self._pending: list[tuple[list[Tensor], tuple[int, ...]]] = []
        self._fetched = Series(self._groups)

    def append(self, norms: list[Tensor], present: tuple[int, ...]) -> None:
        """Note the norms of one update; waits for nothing.

        Args:
            norms: L2 norms of gradients, each of shape ().
            present: For each norm the index of its parameter, in the model's order.
        """
        self._pending.append((norms, present))

    def fetch(self, count: int | None = None) -> None:
        """Copy norms from the device; waits for it.

        Args:
            count: How many of the oldest updates that are still on the device; None is all of them.
        """
        fetched, self._pending = self._pending[:count], self._pending[count:] if count is not None else []
        remaining = _copy_to_host([norm for norms, _ in fetched for norm in norms])
        by_group = np.zeros((len(fetched), self._groups))
        for row, (_, present) in zip(by_group, fetched, strict=True):
            norms, remaining = remaining[: len(present)], remaining[len(present) :]
            np.hypot.at(row, self._owners[list(present)], norms)  # the root of the sum of squares, without overflow
        self._fetched.add(by_group)

    def clear(self) -> None:
        """Forget all updates: the next one is update 0 of ``table``."""
        self._pending, self._fetched = [], Series(self._groups)

    def table(self, start: int, stop: int) -> Float64:
        """Each group's norm at updates ``start`` to ``stop - 1``, shape (updates, groups); waits for the device.

        Rows end with the last update that was noted. A group without gradients has the norm 0.
        """
        self.fetch()
        return self._fetched.numbers(start)[: max(stop - start, 0)].copy()


def _copy_to_host(numbers: list[Tensor]) -> Float64:
    """Tensors of shape () as one float64 array, by a single copy from the device."""
    return torch.stack(numbers).cpu().double().numpy() if numbers else np.empty(0)
