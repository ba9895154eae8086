"""What the loss of a batch is computed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

Reduction: TypeAlias = Literal["mean", "sum"]


class ClassLoss(NamedTuple):
    """The settings of torch's ``cross_entropy``, under its own names.

    Args:
        label_smoothing: The share of the target that is spread evenly over all classes, from 0 to 1.
        class_weights: What the loss of each class is multiplied with; empty means 1 for each.
        reduction: ``"mean"`` divides the sum over the images by the sum of their classes' weights; ``"sum"`` does not.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    reduction: Reduction = "mean"

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean cross-entropy and nothing more."""
        return self == ClassLoss()


class FunctionLoss(NamedTuple):
    """A loss that the user has written.

    Args:
        function: Takes the model's outputs, shape (N, outputs), and the targets, shape (N,); returns the batch's loss.
        reduction: Whether that is the mean over the images of the batch, or their sum.
    """

    function: Callable[[Any, Any], Any]
    reduction: Reduction = "mean"


LossSettings: TypeAlias = ClassLoss | FunctionLoss

PLAIN_LOSS = ClassLoss()
