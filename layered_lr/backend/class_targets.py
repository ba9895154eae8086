"""The targets that a loss gives to images of known classes."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float64, Targets
from layered_lr.losses import ClassLoss


def weigh_targets(loss: ClassLoss, labels: Targets, classes: int) -> tuple[Float64, float]:
    """The weight of each class's log-probability in the loss of a batch, as torch's ``cross_entropy`` weighs them.

    The loss is ``-(targets * log_softmax(logits)).sum() / divisor``.

    Args:
        loss: Smoothing, weights and reduction.
        labels: Shape (N,), each in ``0 .. classes - 1``; or the share of each class, shape (N, classes).
        classes: How many numbers the model answers with.

    Returns:
        The targets, shape (N, classes), and the divisor; it is 0 where the weight of each image is 0.

    Example:
        >>> import numpy as np
        >>> weigh_targets(ClassLoss(label_smoothing=0.2), np.array([1]), 2)
        (array([[0.1, 0.9]]), 1.0)
    """
    weights = np.array(loss.class_weights) if loss.class_weights else np.ones(classes)
    if labels.ndim == 2:
        smooth = labels * (1.0 - loss.label_smoothing) + loss.label_smoothing / classes
        return smooth * weights, float(len(labels)) if loss.reduction == "mean" else 1.0
    targets = np.full((len(labels), classes), loss.label_smoothing / classes)
    targets[np.arange(len(labels)), labels] += 1.0 - loss.label_smoothing
    divisor = float(weights[labels].sum()) if loss.reduction == "mean" else 1.0
    return targets * weights, divisor


def divide_targets(loss: ClassLoss, labels: Targets, classes: int) -> Float64:
    """``weigh_targets``, divided: the loss is ``-(targets * log_softmax(logits)).sum()``, NaN where torch's is."""
    targets, divisor = weigh_targets(loss, labels, classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return targets / divisor
