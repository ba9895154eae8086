"""What a plan does to gradients between backward and update: clip them, and measure their norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import build_of, zeros_like


class Clipping:
    """Clips the gradients of a plan's parameters as torch does, in eager mode and in the trace of a graph alike.

    ``torch.nn.utils.clip_grad_norm_`` over all groups or for each by itself, or ``clip_grad_value_``. Parameters
    without a gradient are left out, NaN spreads as in torch, and nothing waits for the device.

    Args:
        plan: Its spec says how to clip; an infinite norm clips nothing.
        model: Whose parameters it names.
        measured: Measure each group's norm, too.

    Raises:
        Unsupported: Global tensors.
    """

    def __init__(self, plan: Plan, model: Any, measured: bool = False) -> None:
        tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._groups = [[tensors[name] for name in group.parameters] for group in plan.groups]
        largest = plan.spec.clip_grad_norm
        self._largest_norm = None if largest is None or math.isinf(largest) else largest
        self._largest_value = plan.spec.clip_grad_value
        self._per_group = plan.spec.clip_per_group
        self.measured = measured
        if not self.is_idle and any(tensor.is_global for tensor in tensors.values()):
            raise Unsupported("OneFlow backends clip no gradients of global tensors: each rank would see its part.")

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._largest_norm is None and self._largest_value is None and not self.measured

    def apply(self) -> Any:
        """Clip every ``p.grad``.

        Returns:
            Each group's L2 norm before that, shape (groups,), 0 for a group without gradients. None where it is not
            measured, or where there are no gradients at all.
        """
        groups = [[p for p in tensors if p.grad is not None and p.numel()] for tensors in self._groups]
        if self.is_idle or not any(groups):
            return None
        with flow.no_grad():
            norms = None
            if self.measured or self._largest_norm is not None:
                norms = _norms(groups)
            if norms is not None and self._largest_norm is not None:
                self._scale(groups, norms, self._largest_norm)
            if self._largest_value is not None:
                _cut(groups, self._largest_value)
        return norms if self.measured else None

    def _scale(self, groups: Sequence[Sequence[Any]], norms: Any, largest: float) -> None:
        """As ``clip_grad_norm_``, over all groups or for each."""
        if not self._per_group:
            norms = flow.sqrt((norms * norms).sum(dim=0, keepdim=True))
        factors = flow.clamp(largest / (norms + 1e-6), max=1.0)
        factors = flow.where(norms != norms, norms, factors)  # OneFlow's clamp makes a 1 of NaN
        for index, tensors in enumerate(groups):
            for p in tensors:
                p.grad = p.grad * (factors[index] if self._per_group else factors[0])


def _norms(groups: Sequence[Sequence[Any]]) -> Any:
    """The L2 norm of each group, shape (groups,).

    Not by ``flow.linalg.vector_norm``, which adds one number after the other: of a million it is 4e-4 off.
    """
    squares = [[(p.grad * p.grad).sum() for p in tensors] for tensors in groups]
    one = next(square for group in squares for square in group)
    sums = [flow.stack(group).sum() if group else zeros_like(one) for group in squares]
    return flow.sqrt(flow.stack(sums))


def _cut(groups: Sequence[Sequence[Any]], largest: float) -> None:
    """As ``clip_grad_value_``."""
    for tensors in groups:
        for p in tensors:
            cut = flow.clamp(p.grad, min=-largest, max=largest)
            p.grad = flow.where(p.grad != p.grad, p.grad, cut)  # OneFlow's clamp makes a bound of NaN


def clip_before_step(optimizer: Any, clipping: Clipping) -> None:
    """Let an optimizer clip before each update: OneFlow 0.9 has no hooks, and itself wraps ``step`` in the same way."""
    if clipping.is_idle:
        return
    update = optimizer.step

    def step(closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        clipping.apply()
        update()
        return loss

    optimizer.step = step


def clip_in_build(graph: Any, clipping: Clipping) -> None:
    """Let a graph clip where its ``build`` ends, with the gradients known and no update made.

    Where norms are measured, a call of the graph answers what ``build`` does, and the norms.

    Raises:
        Unsupported: At the graph's first call: it accumulates gradients, whose parts would be clipped one by one.
    """
    if clipping.is_idle:
        return
    build, config = build_of(graph), graph.config

    def build_and_clip(*args: Any, **kwargs: Any) -> Any:
        if config.proto.num_gradient_accumulation_steps > 1:
            raise Unsupported(
                "set_gradient_accumulation_steps does not go with clip_grad_norm or clip_grad_value: OneFlow would "
                "clip each part of the batch. Use accumulate_steps of layered_lr.run, or backend 'oneflow-eager'."
            )
        outputs = build(*args, **kwargs)
        norms = clipping.apply()
        return (outputs, norms) if clipping.measured else outputs

    graph.build = build_and_clip
