"""Calls a loss that the user has written, and refuses what is no loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import Tensor, dtype_of


def call_loss(function: Callable[[Any, Any], Any], called: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of a batch by the user's function.

    Args:
        function: Takes outputs and targets.
        called: Its name, for messages.
        outputs: Of the model.
        targets: Of the batch.

    Raises:
        SpecError: It raised, or returned something else than a floating number with a gradient.
    """
    try:
        loss = function(outputs, targets)
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's function raises
        shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        raise SpecError(f"loss: {called} of {shapes} raised {describe_error(error)}") from error
    shape = getattr(loss, "shape", None)
    if shape is None or not hasattr(loss, "requires_grad"):
        raise SpecError(f"loss: {called} returned a {type(loss).__name__}; must be a tensor with a single number.")
    if len(shape):
        raise SpecError(
            f"loss: {called} returned shape {tuple(shape)} for {outputs.shape[0]} images; must be a single number: "
            "take the mean over the images (reduction='mean')."
        )
    if not dtype_of(loss).startswith(("float", "bfloat")):
        raise SpecError(f"loss: {called} returned {dtype_of(loss)}; must be a floating-point number.")
    if outputs.requires_grad and not loss.requires_grad:
        raise SpecError(
            f"loss: what {called} returned has no gradient, so nothing would train. Compute it from the outputs "
            "without detach(), item(), argmax() or no_grad()."
        )
    return loss
