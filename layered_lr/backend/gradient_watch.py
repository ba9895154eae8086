"""Watches which parameters get a gradient: without any, a model would seem to train and never change."""

from __future__ import annotations

from collections.abc import Collection

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import Module, Tensor, parameters_of


def no_gradient_error() -> SpecError:
    """Return what to raise where no gradient reaches anything that is to be trained."""
    return SpecError(
        "model: no gradient reaches any of its trainable parameters, so nothing would train. Its answer does not "
        "depend on them, or forward() cuts it off (detach(), .data, no_grad()). Let the answer depend on a parameter "
        "with requires_grad=True."
    )


def grad_mode_error() -> SpecError:
    """Return what to raise where gradients are switched off around the training."""
    return SpecError(
        "gradients are switched off here, so nothing would train: call this outside of no_grad() and inference_mode()."
    )


class GradientWatch:
    """Which of the parameters that are to be trained have had no gradient so far.

    Args:
        model: Of torch or OneFlow. Parameters with ``requires_grad=False`` are not watched.

    Attributes:
        without: The parameters that have had none, by name.
    """

    def __init__(self, model: Module) -> None:
        self.without: dict[str, Tensor] = {
            parameter.name: tensor for parameter, tensor in parameters_of(model) if tensor.requires_grad
        }
        self.watches_any = bool(self.without)
        self._has_seen_one = not self.without

    def look(self) -> None:
        """Look at the gradients of an update, before they are dropped.

        Raises:
            SpecError: No parameter has had one, in this update or before.
        """
        if self.without:
            self.note([name for name, tensor in self.without.items() if tensor.grad is not None])

    def note(self, names: Collection[str]) -> None:
        """Note the names of parameters that have had a gradient.

        Raises:
            SpecError: No parameter has had one, in this update or before.
        """
        if not self.without:
            return
        if not names and not self._has_seen_one:
            raise no_gradient_error()
        self._has_seen_one = True
        for name in names:
            self.without.pop(name, None)
