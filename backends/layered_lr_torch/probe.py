"""Models whose gradients are known, in torch: see ``layered_lr.parity.probe``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from layered_lr.models.parameter import Parameter


class Probe(torch.nn.Module):
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
            module: torch.nn.Module = self
            for part in parents:
                module = module._modules.setdefault(part, torch.nn.Module())  # type: ignore[assignment]
            tensor = torch.nn.Parameter(torch.zeros(parameter.shape), parameter.name not in frozen)
            module._parameters[leaf] = tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (-200, 0), shape (N, 2), that hold still whatever the weights are.

        With label 0 the cross-entropy's gradient to the first one is exactly -1 in float32 and in float64, however
        a framework rounds: a parameter's gradient is the negative image, element by element, over N.
        """
        arrays = [self.get_parameter(name).reshape(-1) for name in self.names]
        flat = torch.cat(arrays)
        total = (images.reshape(len(images), -1).to(flat.dtype) * flat).sum(dim=1)
        still = total - total.detach()
        return torch.stack([still - 200, still.detach()], dim=1)


class Answers(torch.nn.Module):
    """Gives back what it is given as logits, times a scale, so that the loss and its gradient are known."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (N, classes)."""
        return images.reshape(len(images), -1).to(self.scale.dtype) * self.scale
