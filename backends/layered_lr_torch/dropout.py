"""Dropout whose masks come from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from layered_lr.models.dropout_masks import draw_dropout_mask


class MaskedDropout(torch.nn.Module):
    """Dropout by the masks of ``layered_lr.models.dropout_masks``: the same on every backend.

    What the classes of this name have in common in both frameworks, and the session goes by:

    - ``shares_masks``: True in the class.
    - ``p``: as in ``nn.Dropout``; ``place``: which of the model's dropouts it is; ``shape``: of one image's activation.
    - ``mask``: what the next training batch is multiplied with, shape (N, *shape), put there before each forward pass
      and taken away after the update; None outside of a session, where it drops as ``nn.Dropout`` does.

    It has no parameters and no buffers, so that the model's state has the names that it has with ``nn.Dropout``.
    """

    shares_masks: ClassVar[bool] = True

    def __init__(self, p: float, place: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.p, self.place, self.shape = p, place, shape
        self.mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation, shape (N, *shape), with some of it dropped in training."""
        if not self.training or not self.p:
            return x
        return torch.nn.functional.dropout(x, self.p) if self.mask is None else x * self.mask

    def extra_repr(self) -> str:
        """As ``nn.Dropout`` shows itself."""
        return f"p={self.p}"


class Masks:
    """The masks of all dropouts of a model that take them from outside.

    Args:
        model: Perhaps without any.
        seed: Of the run.

    Attributes:
        any: Whether it has some; if not, there is nothing to do.
    """

    def __init__(self, model: torch.nn.Module, seed: int) -> None:
        self._seed = seed
        self._places = [module for module in model.modules() if isinstance(module, MaskedDropout) and module.p]
        self._parts: list[tuple[MaskedDropout, Sequence[torch.Tensor]]] = []
        self.any = bool(self._places)

    def draw(self, step: int, images: int, parts: int, like: torch.Tensor) -> None:
        """Draw the masks of an update.

        Args:
            step: The update.
            images: All of its parts' together.
            parts: How many these are.
            like: Of the dtype and on the device that the masks are to be.
        """
        self._parts = [
            (place, self._drawn(place, step, images, like).chunk(parts)) for place in self._places if place.training
        ]

    def _drawn(self, place: MaskedDropout, step: int, images: int, like: torch.Tensor) -> torch.Tensor:
        mask = draw_dropout_mask(self._seed, step, place.place, (images, *place.shape), place.p)
        return torch.from_numpy(mask).to(like.device, like.dtype)

    def put(self, part: int) -> None:
        """Have the next forward pass use a part's."""
        for place, masks in self._parts:
            place.mask = masks[part]

    def take_away(self) -> None:
        """Leave the model without."""
        for place, _ in self._parts:
            place.mask = None


def with_masks(model: Any) -> Any:
    """A ``mobilenet_v2`` of torchvision whose one dropout is a ``MaskedDropout``."""
    dropout, linear = model.classifier
    model.classifier[0] = MaskedDropout(dropout.p, 0, (linear.in_features,))
    return model
