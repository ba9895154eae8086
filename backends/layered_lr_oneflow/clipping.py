"""Gradient clipping between the backward pass and the update, and the measurement of norms before it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.oneflow_types import Closure, Graph, Module, NativeOptimizer, Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import check_no_grad_scaler, get_build, zeros_like


class GradientClipper:
    """Clips gradients as torch does, both in eager mode and in the trace of a graph, and measures their norms.

    It does what ``torch.nn.utils.clip_grad_norm_`` does, over all groups or for each group, or what
    ``clip_grad_value_`` does. Parameters without a gradient are left out, NaN spreads as in torch, and nothing waits
    for the device.

    Args:
        plan: How to clip, and the groups; an infinite norm clips nothing.
        model: Whose gradients are clipped.
        measures: Whether each group's norm is measured before clipping.

    Raises:
        Unsupported: The parameters are global tensors, and there is something to do.
    """

    def __init__(self, plan: Plan, model: Module, measures: bool = False) -> None:
        self.measures = measures
        self.begin(plan, model)

    def begin(self, plan: Plan, model: Module) -> None:
        """Clip as a plan says from now on."""
        tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._groups = [[tensors[name] for name in group.parameters] for group in plan.groups]
        limit = plan.spec.clip_grad_norm
        self._limit = None if limit is None or math.isinf(limit) else limit
        self._value = plan.spec.clip_grad_value
        self._per_group = plan.spec.clip_per_group
        if self.has_work and any(tensor.is_global for tensor in tensors.values()):
            raise Unsupported(
                "OneFlow backends clip no gradients of global tensors: each rank would see its part. Leave "
                "clip_grad_norm and clip_grad_value out, or use local tensors."
            )

    @property
    def has_work(self) -> bool:
        """Whether it has to do anything before an update."""
        return self.measures or self._limit is not None or self._value is not None

    def clip(self) -> Tensor | None:
        """Measure and clip the gradients that the parameters hold now.

        Returns:
            Each group's L2 norm before clipping, shape (groups,), 0 for a group without gradients. None if norms are
            not measured, or if there are no gradients at all.
        """
        groups = [[p for p in tensors if p.grad is not None and p.numel()] for tensors in self._groups]
        if not self.has_work or not any(groups):
            return None
        with flow.no_grad():
            norms = None
            if self.measures or self._limit is not None:
                norms = _compute_norms(groups)
            if norms is not None and self._limit is not None:
                self._scale_down(groups, norms, self._limit)
            if self._value is not None:
                _clip_values(groups, self._value)
        return norms if self.measures else None

    def _scale_down(self, groups: Sequence[Sequence[Tensor]], norms: Tensor, limit: float) -> None:
        """Scale gradients so that their norm, over all groups or in each group, is at most ``limit``."""
        if not self._per_group:
            norms = flow.sqrt((norms * norms).sum(dim=0, keepdim=True))
        factors = flow.clamp(limit / (norms + 1e-6), max=1.0)
        factors = flow.where(norms != norms, norms, factors)  # OneFlow's clamp makes a 1 of NaN
        for index, tensors in enumerate(groups):
            for p in tensors:
                p.grad = p.grad * (factors[index] if self._per_group else factors[0])


def _compute_norms(groups: Sequence[Sequence[Tensor]]) -> Tensor:
    """Compute the L2 norm of each group, shape (groups,).

    ``flow.linalg.vector_norm`` adds one number after the other: for a million numbers its result is 4e-4 off.
    """
    squares = [[(p.grad * p.grad).sum() for p in tensors] for tensors in groups]
    one = next(square for group in squares for square in group)
    sums = [flow.stack(group).sum() if group else zeros_like(one) for group in squares]
    return flow.sqrt(flow.stack(sums))


def _clip_values(groups: Sequence[Sequence[Tensor]], limit: float) -> None:
    """Clip each element of each gradient to between ``-limit`` and ``limit``."""
    for tensors in groups:
        for p in tensors:
            clipped = flow.clamp(p.grad, min=-limit, max=limit)
            p.grad = flow.where(p.grad != p.grad, p.grad, clipped)  # OneFlow's clamp makes a bound of NaN


def clip_before_step(optimizer: NativeOptimizer, clipper: GradientClipper) -> None:
    """Let an optimizer clip before each update."""
    if clipper.has_work:
        call_before_step(optimizer, clipper.clip)


def call_before_step(optimizer: NativeOptimizer, call: Callable[[], object]) -> None:
    """Let an optimizer call something before each update, when the gradients are there.

    OneFlow 0.9's optimizers have no hooks; OneFlow itself wraps ``step`` in the same way.
    """
    update = optimizer.step

    def step(closure: Closure | None = None) -> Any:
        loss = None if closure is None else closure()
        call()
        update()
        return loss

    optimizer.step = step


def clip_in_build(graph: Graph, clipper: GradientClipper) -> None:
    """Let a graph clip at the end of its ``build``, when all gradients are known and no update is made yet.

    If norms are measured, a call of the graph returns what ``build`` returns, and the norms.

    Raises:
        Unsupported: At the graph's first call: it accumulates gradients, whose parts would be clipped one by one.
    """
    if not clipper.has_work:
        return
    build, config = get_build(graph), graph.config
    reference = weakref.ref(graph)  # no cycle: a graph must end with its last user

    def build_and_clip(*args: Any, **kwargs: Any) -> Any:
        if config.proto.num_gradient_accumulation_steps > 1:
            raise Unsupported(
                "set_gradient_accumulation_steps does not go with clip_grad_norm or clip_grad_value: OneFlow would "
                "clip each part of the batch. Use accumulate_steps of layered_lr.run, or backend 'oneflow-eager'."
            )
        check_no_grad_scaler(reference(), "clipping or measuring gradients")
        outputs = build(*args, **kwargs)
        norms = clipper.clip()
        return (outputs, norms) if clipper.measures else outputs

    graph.build = build_and_clip
