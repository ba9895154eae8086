"""The loss of class numbers, as an option of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from layered_lr.losses import ClassLoss
from layered_lr.scalars import read_number
from layered_lr.training.option import TRAINING, Refused, number, one_of, option, option_class

_LARGEST_WEIGHT = 1e30  # float32 holds it, and its product with a loss


def _class_weights(value: Any) -> tuple[float, ...]:
    words = "a number from 0 to 1e30 for each class, at least one of them above 0"
    if value is None:
        return ()
    parts = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, Sequence):
        raise Refused(words)
    weights = []
    for part in (each for some in parts for each in (some.split(",") if isinstance(some, str) else [some])):
        try:
            weight = float(part) if isinstance(part, str) else read_number(part)
        except ValueError:
            weight = None
        if weight is None or not 0 <= weight <= _LARGEST_WEIGHT:
            raise Refused(words)
        weights.append(float(weight))
    if weights and not any(weights):
        raise Refused(words)
    return tuple(weights)


@option_class
class CrossEntropy:
    """The cross-entropy of the classes, as ``torch.nn.functional.cross_entropy`` computes it.

    The mean of images with class weights is divided by the sum of their weights, as torch does it. The mean of several
    batches is another number than the mean of all their images then, so ``accumulate_steps`` above 1 is refused, as are
    several processes.

    Example:
        >>> import layered_lr as ll
        >>> ll.CrossEntropy(label_smoothing=0.1)
        CrossEntropy(label_smoothing=0.1, class_weights=(), reduction='mean')
    """

    __called__: ClassVar[str] = "CrossEntropy"

    label_smoothing: float = option(
        default=0.0,
        help="The share of each target that is spread evenly over all classes, such as 0.1.",
        check=number("a number from 0 to 1", lambda value: 0 <= value <= 1),
        meaning=TRAINING,
        flag="--label-smoothing",
        kind="float",
    )
    class_weights: Sequence[float] = option(
        default=(),
        help="What the loss of each class is multiplied with, in the order of the class numbers.",
        check=_class_weights,
        allowed="a number for each class",
        meaning=TRAINING,
        flag="--class-weights",
        metavar="X,X,…",
        kind="list",
    )
    reduction: Literal["mean", "sum"] = option(
        default="mean",
        help="'mean' divides by the sum of the images' class weights, 'sum' adds the losses of a batch.",
        check=one_of("mean", "sum"),
        meaning=TRAINING,
        flag="--reduction",
        metavar="NAME",
    )

    @property
    def settings(self) -> ClassLoss:
        """What sessions compute with; class weights that are all 1 are none."""
        ones = all(weight == 1 for weight in self.class_weights)
        return ClassLoss(self.label_smoothing, () if ones else tuple(self.class_weights), self.reduction)

    @property
    def why_not_in_parts(self) -> str:
        """Why the mean of the losses of a batch's parts is not the loss of the batch; empty where it is."""
        if self.settings.class_weights:
            return "class_weights"
        return "reduction='sum'" if self.reduction == "sum" else ""
