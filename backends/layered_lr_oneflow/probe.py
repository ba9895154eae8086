"""Two OneFlow models whose gradients are known exactly; ``layered_lr.parity.probe`` tests backends with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce

from layered_lr.models.parameter import Parameter
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.runtime import flow


class Probe(flow.nn.Module):
    """A model with parameters of the given names, whose gradients are the images that it is given.

    Args:
        parameters: Their names and shapes; a dot in a name makes a nested module.
        frozen: Names of those that have ``requires_grad=False``.
    """

    def __init__(self, parameters: Sequence[Parameter], frozen: Collection[str]) -> None:
        super().__init__()
        self.names = [parameter.name for parameter in parameters]
        for parameter in parameters:
            *parents, leaf = parameter.name.split(".")
            module: Module = self
            for part in parents:
                module = module._modules.setdefault(part, flow.nn.Module())
            module._parameters[leaf] = flow.nn.Parameter(flow.zeros(parameter.shape), parameter.name not in frozen)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (-200, 0) for each image, shape (N, 2), whatever the weights are.

        With label 0 the cross-entropy's gradient to the first logit is exactly -1 in float32 and in float64, however
        a framework rounds. So a parameter's gradient is the negative image, element by element, divided by N.
        """
        flat = flow.cat([reduce(getattr, name.split("."), self).reshape(-1) for name in self.names])
        total = (images.reshape(images.shape[0], -1).to(flat.dtype) * flat).sum(dim=1)
        zero = total - total.detach()
        return flow.stack([zero - 200, zero.detach()], dim=1)


class Answers(flow.nn.Module):
    """A model that returns the images times a scale as logits, so that the loss and its gradient are known."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = flow.nn.Parameter(flow.ones(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (N, classes)."""
        return images.reshape(images.shape[0], -1).to(self.scale.dtype) * self.scale
