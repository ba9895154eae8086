"""Two torch models whose gradients are known exactly; ``layered_lr.parity.probe`` tests backends with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from layered_lr.models.parameter import Parameter
from layered_lr_torch.torch_types import Module, Tensor


class Probe(torch.nn.Module):
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
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module.get_submodule(part)
            tensor = torch.nn.Parameter(torch.zeros(parameter.shape), parameter.name not in frozen)
            module._parameters[leaf] = tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (-200, 0) for each image, shape (N, 2), whatever the weights are.

        With label 0 the cross-entropy's gradient to the first logit is exactly -1 in float32 and in float64, however
        a framework rounds. So a parameter's gradient is the negative image, element by element, divided by N.
        """
        arrays = [self.get_parameter(name).reshape(-1) for name in self.names]
        flat = torch.cat(arrays)
        total = (images.reshape(len(images), -1).to(flat.dtype) * flat).sum(dim=1)
        zero = total - total.detach()
        return torch.stack([zero - 200, zero.detach()], dim=1)


class Answers(torch.nn.Module):
    """A model that returns the images times a scale as logits, so that the loss and its gradient are known."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (N, classes)."""
        return images.reshape(len(images), -1).to(self.scale.dtype) * self.scale
