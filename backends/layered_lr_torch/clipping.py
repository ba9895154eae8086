"""Gradient clipping between the backward pass and the update, and the measurement of norms before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_torch.norms import NormHistory
from layered_lr_torch.sharding import get_part, is_sharded, measure_norms
from layered_lr_torch.torch_types import Closure, Module, Tensor


class GradientClipper:
    """Clips gradients before each update as the plan says, and measures their norms before that.

    It is a pre-hook of ``optimizer.step``, so the optimizer stays torch's own. The result is bitwise that of
    ``torch.nn.utils.clip_grad_norm_`` and ``clip_grad_value_`` over the model's parameters in their order. Parameters
    without a gradient are left out. Under ``torch.amp`` a ``GradScaler`` must unscale the gradients before
    ``optimizer.step``: ``attach`` tells it that the optimizer does not unscale them itself.

    Args:
        plan: How to clip, and the groups.
        model: Whose gradients are clipped.
        norms: Takes the norms of each update; None measures none.
    """

    def __init__(self, plan: Plan, model: Module, norms: NormHistory | None = None) -> None:
        self._norms = norms
        self.begin(plan, model)

    def begin(self, plan: Plan, model: Module) -> None:
        """Begin anew with another plan, whose groups and names may be others."""
        parameters = [(parameter.name, tensor) for parameter, tensor in parameters_of(model)]
        self._parameters = [tensor for _, tensor in parameters]
        self._is_sharded = any(map(is_sharded, self._parameters))
        self._owners = np.array([plan.group_of[name] for name, _ in parameters])
        self.follow(plan)
        self._all_indices = tuple(range(len(parameters)))
        self._members: dict[tuple[int, ...], list[list[int]]] = {}

    def follow(self, plan: Plan) -> None:
        """Clip as another plan says; it must have the same groups."""
        self._per_group = plan.spec.clip_per_group
        self._value = plan.spec.clip_grad_value
        limit = plan.spec.clip_grad_norm
        self._limit = None if limit is None or math.isinf(limit) else limit

    def exchange(self, new: Callable[[Tensor], Tensor]) -> None:
        """Clip the gradients of the objects that ``new`` gives for the parameters so far."""
        self._parameters = [new(tensor) for tensor in self._parameters]
        self._is_sharded = any(map(is_sharded, self._parameters))

    @property
    def has_work(self) -> bool:
        """Whether it has to do anything before an update."""
        return self._norms is not None or self._limit is not None or self._value is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip before each update that ``optimizer.step`` makes; with a closure, after the closure."""
        optimizer.register_step_pre_hook(self._clip_before_step)
        # A fused optimizer would be given scaled gradients and unscale them itself, after the clipping.
        vars(optimizer)["_step_supports_amp_scaling"] = False

    def _clip_before_step(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure: Closure | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self.clip()
            return None

        def evaluate_and_clip() -> Any:
            loss = closure()
            self.clip()
            return loss

        return args[:1], {**kwargs, "closure": evaluate_and_clip}

    @torch.no_grad()
    def clip(self) -> None:
        """Measure and clip the gradients that the parameters hold now; waits for nothing."""
        gradients: list[Any] = [parameter.grad for parameter in self._parameters]
        present = self._all_indices
        if any(gradient is None for gradient in gradients):
            present = tuple(index for index in self._all_indices if gradients[index] is not None)
            gradients = [gradients[index] for index in present]
        norms: list[Tensor] = []
        if gradients and (self._norms is not None or self._limit is not None):
            norms = measure_norms(gradients) if self._is_sharded else list(torch._foreach_norm(gradients))
        if self._is_sharded:
            gradients = [get_part(gradient) for gradient in gradients]
        if self._norms is not None:
            self._norms.append(norms, present)
        if self._limit is not None and norms:
            for members in self._find_members(present):
                _scale_down([gradients[index] for index in members], [norms[index] for index in members], self._limit)
        if self._value is not None:
            if self._is_sharded:
                for gradient in gradients:
                    gradient.clamp_(-self._value, self._value)
            elif present:  # torch fails where there is nothing to clip
                torch.nn.utils.clip_grad_value_([self._parameters[index] for index in present], self._value)

    def _find_members(self, present: tuple[int, ...]) -> list[list[int]]:
        """Which of the present gradients are clipped by one norm: lists of their indices in ``present``."""
        if not self._per_group:
            return [list(range(len(present)))]
        if present not in self._members:
            owners = self._owners[list(present)]
            self._members[present] = [np.flatnonzero(owners == group).tolist() for group in np.unique(owners)]
        return self._members[present]


def _scale_down(gradients: list[Tensor], norms: list[Tensor], limit: float) -> None:
    """Scale gradients so that their common norm is at most ``limit``."""
    first = norms[0].device
    total = torch.linalg.vector_norm(torch.stack([norm.to(first) for norm in norms]))
    factor = torch.clamp(limit / (total + 1e-6), max=1.0)  # the 1e-6 is torch's
    if all(gradient.device == first for gradient in gradients):
        torch._foreach_mul_(gradients, factor)
    else:
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.device))
