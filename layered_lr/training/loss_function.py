"""A loss that the user has written, as an option of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from layered_lr.errors import SpecError
from layered_lr.losses import FunctionLoss
from layered_lr.printed import name_of
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.import_paths import import_path, imported, is_import_path
from layered_lr.training.in_file import by_hand
from layered_lr.training.option import TRAINING, Refused, option, option_class

_WORDS = "a function (outputs, targets) -> loss, or package.module:name of one"
_OF_SIGMOIDS = (  # torch's, which take the sigmoid of each output
    "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss",
    "binary_cross_entropy_with_logits",
    "multilabel_soft_margin_loss",
)
_AVERAGED_BY_WEIGHT = ("CrossEntropyLoss", "NLLLoss")  # their mean is over the sum of the images' class weights


def _function(value: Any) -> Any:
    path = value
    if isinstance(path, str):
        if not is_import_path(path):
            raise Refused(_WORDS)
        value = imported(by_hand("loss", path), "loss")
    if isinstance(value, type):
        raise SpecError(f"loss: {value.__name__} is a class; give an object of it, such as {value.__name__}().")
    if not callable(value):
        raise Refused(_WORDS)
    parameters = getattr(value, "parameters", None)
    if parameters is not None and hasattr(value, "_modules") and list(parameters()):
        raise SpecError(
            f"loss: {name_of(value)} has parameters, which no group would train. Put them into the model, or leave "
            "them out."
        )
    return value


def _reduction(value: Any) -> Any:
    if value not in (None, "mean", "sum"):
        raise Refused("'mean', 'sum', or None for what the function itself says")
    return value


@option_class
class LossFunction:
    """A loss of your own: any function, or ``torch.nn`` module, of the model's outputs and the targets.

    ``run(loss=function)`` is short for ``run(loss=ll.LossFunction(function))``. It is written in torch, for all
    backends: for OneFlow it is translated, as a model is. (Where the model is a OneFlow module of yours, the function
    gets OneFlow's tensors.) It returns one number for the batch: the mean over its images, or their sum. That matters
    where a batch comes in parts (``accumulate_steps``) or is shared by several processes: the mean of the parts' means
    is the mean of all. A loss for which that does not hold is refused there: it is tried on random outputs.

    A run's folder keeps the function's import path; a lambda must be given again to ``resume``. What a function
    remembers between batches is not saved.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> ll.LossFunction(torch.nn.MultiMarginLoss()).reduction
        'mean'
    """

    __called__: ClassVar[str] = "LossFunction"

    function: Callable[[Any, Any], Any] = option(
        default=None,
        help="Takes the outputs, shape (N, outputs), and the targets, shape (N,); returns the loss of the batch.",
        check=_function,
        allowed=_WORDS,
        meaning=TRAINING,
    )
    reduction: Literal["mean", "sum"] | None = option(
        default=None,
        help="Whether the function returns the mean over the images or their sum; None is what its own reduction says.",
        check=_reduction,
        allowed="'mean', 'sum', or None",
        meaning=TRAINING,
    )

    def __post_init__(self) -> None:
        """Take the reduction from the function, where it has one."""
        own = getattr(self.function, "reduction", None)
        if own == "none":
            raise SpecError(
                f"loss: {name_of(self.function)} has reduction='none', which is a number for each image; it must be "
                "'mean' or 'sum'."
            )
        if own in ("mean", "batchmean", "sum"):
            own = "sum" if own == "sum" else "mean"
            if self.reduction not in (None, own):
                raise SpecError(f"loss: reduction={self.reduction!r}, but that of {name_of(self.function)} is {own!r}.")
        object.__setattr__(self, "reduction", self.reduction or (own if own == "sum" else "mean"))

    @property
    def settings(self) -> FunctionLoss:
        """What sessions compute with."""
        return FunctionLoss(self.function, self.reduction or "mean")

    @property
    def why_not_in_parts(self) -> str:
        """Why the mean of the losses of a batch's parts is not the loss of the batch; empty where it is."""
        if self.reduction == "sum":
            return f"{name_of(self.function)}, whose reduction is 'sum',"
        weighs = getattr(self.function, "weight", None) is not None
        return (
            f"the class weights of {name_of(self.function)}"
            if weighs and name_of(self.function) in _AVERAGED_BY_WEIGHT
            else ""
        )

    @property
    def takes_sigmoid(self) -> bool:
        """Whether it is one of torch's losses that take the sigmoid of each output, so that outputs are logits."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        is_of_torch = str(getattr(named, "__module__", "")).startswith("torch.nn.")
        return is_of_torch and getattr(named, "__qualname__", "") in _OF_SIGMOIDS

    @property
    def is_written(self) -> bool:
        """Whether a file can hold it: the function has an import path."""
        return isinstance(import_path(self.function), str)

    def to_plain(self) -> Any:
        """The function's import path, or a table with the reduction too; an empty path stands for one that is lost."""
        path = import_path(self.function) if self.is_written else ""
        return path if path and self.reduction == "mean" else {"function": path, "reduction": self.reduction}


def is_lost(said: object) -> bool:
    """Whether a file's word for a loss says only that there was a function."""
    return isinstance(said, Mapping) and said.get("function") == ""


def read_loss(value: Any) -> CrossEntropy | LossFunction:
    """What ``loss=...`` stands for: a loss, the name of one, a function, its import path, or a table of fields.

    Example:
        >>> read_loss("cross_entropy") == read_loss({"label_smoothing": 0.0})
        True
    """
    if isinstance(value, CrossEntropy | LossFunction):
        return value
    if isinstance(value, Mapping):
        return LossFunction(**value) if "function" in value else CrossEntropy(**value)
    if (isinstance(value, str) and is_import_path(value)) or callable(value):
        return LossFunction(value)
    if value == "cross_entropy":
        return CrossEntropy()
    raise Refused("'cross_entropy', ll.CrossEntropy(...), or a function (outputs, targets) -> loss")
