"""Checks of what a model returns: a number for each image and class, in a dtype that can be trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import dtype_of


def check_logits(logits: object, count: int, num_classes: int, dtypes: Sequence[str]) -> None:
    """Refuse an output of a model that is no floating tensor of shape (images, at least ``num_classes``).

    OneFlow would go on with labels out of range, or abort the process. This is no method, because a graph keeps it: a
    session that its graph holds would be in a cycle with it.

    Args:
        logits: The output of the model.
        count: Number of images.
        num_classes: Of the data; 0 where its targets are no class numbers, and the answer may have any shape (N, ...).
        dtypes: That the model may answer with.

    Raises:
        SpecError: It is not a tensor, or has another shape or dtype.
    """
    shape = tuple(getattr(logits, "shape", ()))
    if not num_classes and (not shape or shape[0] != count):
        raise SpecError(
            f"model: returned {f'shape {shape}' if shape else f'a {type(logits).__name__}'} for {count} images; must "
            f"be a tensor whose first axis has one entry for each image, ({count}, ...)."
        )
    if num_classes and (len(shape) != 2 or shape[0] != count or shape[1] < num_classes):
        what = f"shape {shape}" if shape else f"a {type(logits).__name__}"
        many = isinstance(logits, Mapping | tuple | list)
        hint = " Let it return the logits alone, such as by a module around it." if many else ""
        raise SpecError(
            f"model: returned {what} for {count} images; must be a tensor of shape ({count}, {num_classes}), with a "
            f"number for each of the data's {num_classes} classes.{hint}"
        )
    dtype = dtype_of(logits)
    if dtype not in dtypes:
        raise SpecError(
            f"model: returned {dtype} for {count} images; must be one of {', '.join(dtypes)}. Convert the logits at "
            "the end of forward()."
        )


def check_outputs(logits: object, classes: int) -> None:
    """Refuse more outputs than classes: smoothing would go to classes that the data do not have.

    Args:
        logits: The output of the model, of two dimensions.
        classes: Of the data.

    Raises:
        SpecError: There are more.
    """
    outputs = tuple(getattr(logits, "shape", ()))[1]
    if outputs != classes:
        raise SpecError(
            f"loss: the model answers with {outputs} numbers for {classes} classes; label smoothing, class weights, "
            "reduction='sum' and mixed images need as many outputs as classes. Give the model a head for them "
            "(head='auto'), or leave it out."
        )
