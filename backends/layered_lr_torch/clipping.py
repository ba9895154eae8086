"""What happens to gradients between the backward pass and the update: measured, clipped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from layered_lr.arrays import Float64
from layered_lr.backend.series import Series
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan


class Gradients:
    """Measures and clips gradients before each update.

    It is a pre-hook of ``optimizer.step``, so that the optimizer stays torch's own; copying or pickling an optimizer
    leaves its hooks behind. The result is bitwise that of ``torch.nn.utils.clip_grad_norm_`` and
    ``clip_grad_value_``, given the model's parameters in their order; parameters without a gradient take no part.
    Under ``torch.amp`` a ``GradScaler`` unscales the gradients before it calls ``optimizer.step``: ``attach`` tells it
    that the optimizer itself does not.

    Args:
        plan: How to clip, and the groups.
        model: Whose gradients.
        measure: Keep each group's norm before clipping, for ``norms``.
    """

    def __init__(self, plan: Plan, model: torch.nn.Module, measure: bool = False) -> None:
        objects = [(parameter.name, tensor) for parameter, tensor in parameters_of(model)]
        self.measure = measure
        self._parameters = [tensor for _, tensor in objects]
        self._owners = np.array([plan.group_of[name] for name, _ in objects])
        self._groups = len(plan.groups)
        self.follow(plan)
        self._everything = tuple(range(len(objects)))
        self._members: dict[tuple[int, ...], list[list[int]]] = {}
        self._pending: list[tuple[list[torch.Tensor], tuple[int, ...]]] = []  # norms that only the device has
        self._norms = Series(self._groups)

    def follow(self, plan: Plan) -> None:
        """Clip as a plan of the same groups says."""
        self._per_group = plan.spec.clip_per_group
        self._value = plan.spec.clip_grad_value
        limit = plan.spec.clip_grad_norm
        self._limit = None if limit is None or math.isinf(limit) else limit

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do before an update."""
        return self.measure or self._limit is not None or self._value is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Do it before each ``optimizer.step``, and inside of it where it takes a closure, after the closure."""
        optimizer.register_step_pre_hook(self._before_step)
        # A fused optimizer would be given scaled gradients and unscale them itself, after the clipping.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]

    def _before_step(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self.treat()
            return None

        def treated() -> Any:
            loss = closure()
            self.treat()
            return loss

        return args[:1], {**kwargs, "closure": treated}

    @torch.no_grad()
    def treat(self) -> None:
        """Measure and clip the gradients that the parameters hold; waits for nothing."""
        gradients: list[Any] = [parameter.grad for parameter in self._parameters]
        present = self._everything
        if any(gradient is None for gradient in gradients):
            present = tuple(index for index in self._everything if gradients[index] is not None)
            gradients = [gradients[index] for index in present]
        norms: list[torch.Tensor] = []
        if gradients and (self.measure or self._limit is not None):
            norms = list(torch._foreach_norm(gradients))
        if self.measure:
            self._pending.append((norms, present))
        if self._limit is not None and norms:
            for members in self._together(present):
                _shrink([gradients[index] for index in members], [norms[index] for index in members], self._limit)
        if self._value is not None:
            torch.nn.utils.clip_grad_value_([self._parameters[index] for index in present], self._value)

    def _together(self, present: tuple[int, ...]) -> list[list[int]]:
        """Which of the gradients at hand have a norm in common, by their places."""
        if not self._per_group:
            return [list(range(len(present)))]
        if present not in self._members:
            owners = self._owners[list(present)]
            self._members[present] = [np.flatnonzero(owners == group).tolist() for group in np.unique(owners)]
        return self._members[present]

    def fetch(self, count: int | None = None) -> None:
        """Bring the norms of the oldest so many updates over from the device, or of all; waits for it."""
        fetched, self._pending = self._pending[:count], self._pending[count:] if count is not None else []
        together = _to_host([norm for norms, _ in fetched for norm in norms])
        by_group = np.zeros((len(fetched), self._groups))
        for row, (_, present) in zip(by_group, fetched, strict=True):
            norms, together = together[: len(present)], together[len(present) :]
            np.hypot.at(row, self._owners[list(present)], norms)  # the root of the sum of squares, without overflow
        self._norms.add(by_group)

    def clear(self) -> None:
        """Forget the updates so far: the next one is number 0 in ``norms``."""
        self._pending, self._norms = [], Series(self._groups)

    def norms(self, start: int, stop: int) -> Float64:
        """Each group's norm at some updates before clipping, shape (steps, groups); see ``Session.grad_norms``."""
        self.fetch()
        return self._norms.numbers(start)[: max(stop - start, 0)].copy()


def _shrink(gradients: list[torch.Tensor], norms: list[torch.Tensor], limit: float) -> None:
    """Scale gradients down to a norm in common, where it is more."""
    first = norms[0].device
    total = torch.linalg.vector_norm(torch.stack([norm.to(first) for norm in norms]))
    factor = torch.clamp(limit / (total + 1e-6), max=1.0)  # the 1e-6 is torch's
    if all(gradient.device == first for gradient in gradients):
        torch._foreach_mul_(gradients, factor)
    else:
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.device))


def _to_host(numbers: list[torch.Tensor]) -> Float64:
    """Tensors of one number each as one float64 array, by one copy from the device."""
    return torch.stack(numbers).cpu().double().numpy() if numbers else np.empty(0)
