"""What a loss of class numbers is computed with."""

from __future__ import annotations

from typing import Literal, NamedTuple


class ClassLoss(NamedTuple):
    """The settings of torch's ``cross_entropy``, under its own names.

    Args:
        label_smoothing: The share of the target that is spread evenly over all classes, from 0 to 1.
        class_weights: What the loss of each class is multiplied with; empty means 1 for each.
        reduction: ``"mean"`` divides the sum over the images by the sum of their classes' weights; ``"sum"`` does not.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean cross-entropy and nothing more."""
        return self == ClassLoss()


PLAIN_LOSS = ClassLoss()
