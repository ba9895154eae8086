"""The loss of a batch in torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch

from layered_lr.backend.loss_values import call_loss
from layered_lr.backend.output_checks import check_outputs
from layered_lr.losses import FunctionLoss, LossSettings
from layered_lr.printed import name_of
from layered_lr_torch.torch_types import Tensor


def make_loss(
    loss: LossSettings, num_classes: int, device: torch.device, dtype: torch.dtype
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the function that computes the loss of a batch from the logits and the labels.

    Args:
        loss: What the updates make smaller.
        num_classes: Of the data.
        device: Where the model is.
        dtype: Of the logits.
    """
    if isinstance(loss, FunctionLoss):
        function = loss.function
        if isinstance(function, torch.nn.Module):  # a copy: class weights, say, come to the model's device and dtype
            function = copy.deepcopy(function).to(device, dtype)
        return partial(call_loss, function, name_of(function))
    if loss.is_plain:
        return partial(_compute_plain, num_classes)
    weights = torch.tensor(loss.class_weights, dtype=torch.float64, device=device) if loss.class_weights else None

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        check_outputs(logits, num_classes)
        return torch.nn.functional.cross_entropy(
            logits,
            labels,
            None if weights is None else weights.to(logits.dtype),
            reduction=loss.reduction,
            label_smoothing=loss.label_smoothing,
        )

    return compute


def _compute_plain(num_classes: int, logits: Tensor, labels: Tensor) -> Tensor:
    if labels.dim() > 1:
        check_outputs(logits, num_classes)
    return torch.nn.functional.cross_entropy(logits, labels)


class LossModule(torch.nn.Module):
    """A loss as a module, which can be traced. Its outputs have a gradient where it trains; its parts keep their modes.

    Args:
        function: Takes outputs and targets.
        dtype: Of the outputs.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.function = function
        if isinstance(function, torch.nn.Module):
            self.function = copy.deepcopy(function).cpu().to(dtype)

    def train(self, mode: bool = True) -> LossModule:
        """Set the mode of this module alone: torch evaluates a loss in the modes that it trains in."""
        self.training = mode
        return self

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of a batch."""
        return self.function(outputs, targets)
