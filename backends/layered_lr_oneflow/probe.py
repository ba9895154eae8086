"""Models whose gradients are known, in OneFlow: see ``layered_lr.parity.probe``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce
from typing import Any

from layered_lr.models.parameter import Parameter
from layered_lr_oneflow.runtime import flow


class Probe(flow.nn.Module):  # type: ignore[misc] # OneFlow has no types
    """Parameters of the given names, whose gradients are what is fed in as images.

    Args:
        parameters: Names, with dots where modules are to be nested, and shapes.
        frozen: Names of those that have ``requires_grad=False``.
    """

    def __init__(self, parameters: Sequence[Parameter], frozen: Collection[str]) -> None:
        super().__init__()
        self.names = [parameter.name for parameter in parameters]
        for parameter in parameters:
            *parents, leaf = parameter.name.split(".")
            module: Any = self
            for part in parents:
                module = module._modules.setdefault(part, flow.nn.Module())
            module._parameters[leaf] = flow.nn.Parameter(flow.zeros(parameter.shape), parameter.name not in frozen)

    def forward(self, images: Any) -> Any:
        """Logits (-200, 0), shape (N, 2), that hold still whatever the weights are.

        With label 0 the cross-entropy's gradient to the first one is exactly -1 in float32 and in float64, however
        a framework rounds: a parameter's gradient is the negative image, element by element, over N.
        """
        flat = flow.cat([reduce(getattr, name.split("."), self).reshape(-1) for name in self.names])
        total = (images.reshape(images.shape[0], -1).to(flat.dtype) * flat).sum(dim=1)
        still = total - total.detach()
        return flow.stack([still - 200, still.detach()], dim=1)


class Answers(flow.nn.Module):  # type: ignore[misc]
    """Gives back what it is given as logits, times a scale, so that the loss and its gradient are known."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = flow.nn.Parameter(flow.ones(classes))

    def forward(self, images: Any) -> Any:
        """Logits, shape (N, classes)."""
        return images.reshape(images.shape[0], -1).to(self.scale.dtype) * self.scale
