"""Dropout with masks that the session draws, so that every backend drops the same activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from layered_lr.data.share import WHOLE, Share
from layered_lr.models.dropout_masks import draw_dropout_mask
from layered_lr_torch.torch_types import Module, Tensor


class MaskedDropout(torch.nn.Module):
    """Dropout that multiplies by a given mask in training; without a mask it draws its own, as ``nn.Dropout`` does.

    It has no parameters and no buffers, so the model's state has the same names as with ``nn.Dropout``.

    Args:
        p: Probability of dropping an element, 0 to 1.
        place: Which of the model's dropouts it is, from 0.
        shape: Of one image's activation.

    Attributes:
        mask: What the next training batch is multiplied with, shape (N, *shape). A session sets it before each forward
            pass and removes it after the update.
    """

    layered_lr_shares_masks: ClassVar[bool] = True

    def __init__(self, p: float, place: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.p, self.place, self.shape = p, place, shape
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of an activation of shape (N, *shape), in training only."""
        if not self.training or not self.p:
            return x
        return torch.nn.functional.dropout(x, self.p) if self.mask is None else x * self.mask

    def extra_repr(self) -> str:
        """The arguments in ``repr(model)``, as ``nn.Dropout`` shows them."""
        return f"p={self.p}"


class DropoutMasks:
    """The masks of all ``MaskedDropout`` modules of a model.

    Args:
        model: May have none of them.
        seed: Of the run.
        share: Which part of all images this process has.

    Attributes:
        has_work: Whether the model has any such dropout with ``p > 0``.
    """

    def __init__(self, model: Module, seed: int, share: Share = WHOLE) -> None:
        self._seed, self._share = seed, share
        self._dropouts = [module for module in model.modules() if isinstance(module, MaskedDropout) and module.p]
        self._masks: list[tuple[MaskedDropout, Sequence[Tensor]]] = []
        self.has_work = bool(self._dropouts)

    def draw(self, step: int, images: int, parts: int, like: Tensor) -> None:
        """Draw the masks of one update.

        Args:
            step: The update.
            images: How many images the update has, in all parts and in all processes.
            parts: How many parts of one size the batch comes in.
            like: The masks get its dtype and device.
        """
        self._masks = [
            (dropout, self._draw_one(dropout, step, images, parts, like).chunk(parts))
            for dropout in self._dropouts
            if dropout.training
        ]

    def _draw_one(self, dropout: MaskedDropout, step: int, images: int, parts: int, like: Tensor) -> Tensor:
        mask = draw_dropout_mask(self._seed, step, dropout.place, (images, *dropout.shape), dropout.p)
        if self._share.count > 1:
            mask = mask[self._share.rows(images, parts)]
        return torch.from_numpy(mask).to(like.device, like.dtype)

    def insert(self, part: int) -> None:
        """Give each dropout the mask of one part of the batch, for the next forward pass."""
        for dropout, masks in self._masks:
            dropout.mask = masks[part]

    def remove(self) -> None:
        """Take the masks away: the dropouts draw their own again."""
        for dropout, _ in self._masks:
            dropout.mask = None


def mask_dropout(model: Any) -> Module:
    """Replace the one dropout of torchvision's ``mobilenet_v2`` by a ``MaskedDropout``, in place.

    Returns:
        The same model.
    """
    dropout, linear = model.classifier
    model.classifier[0] = MaskedDropout(dropout.p, 0, (linear.in_features,))
    masked: Module = model
    return masked
