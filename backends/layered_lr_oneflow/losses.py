"""The loss of a batch in OneFlow, eager or in a graph."""

from __future__ import annotations

from layered_lr.backend.base import check_outputs
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow


def compute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of a batch.

    Args:
        logits: Shape (N, classes).
        targets: Class numbers of shape (N,), for the mean cross-entropy; or ``class_targets.divide_targets``, shape
            (N, classes), for any other loss.

    Raises:
        SpecError: There are more outputs than classes under another loss than the mean cross-entropy.
    """
    if targets.dim() == 1:
        return flow.nn.functional.cross_entropy(logits, targets)
    check_outputs(logits, targets.shape[1])
    return -(targets * flow.nn.functional.log_softmax(logits, dim=1)).sum()
