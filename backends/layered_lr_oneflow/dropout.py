"""Dropout: masks that the session draws for the library's own models, and what a user's model draws by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.data.share import WHOLE, Share
from layered_lr.models.dropout_masks import draw_dropout_mask
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.random_places import RandomPlace
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.translated_module import Translated
from layered_lr_oneflow.translated_parts import TranslatedPart

_RANDOM = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "DropPath", "StochasticDepth", "RReLU")

_STREAM = 12  # tells these draws from others of the same seed


class MaskedDropout(flow.nn.Dropout):
    """Dropout that multiplies by a given mask in training; without a mask it draws its own, as ``nn.Dropout`` does.

    Args:
        p: Probability of dropping an element, 0 to 1.
        features: How many numbers an image's activation has.

    Attributes:
        mask: What the next training batch is multiplied with, shape (N, features), in the activation's dtype. In the
            trace of a graph it is a tensor of the graph.
    """

    layered_lr_shares_masks: ClassVar[bool] = True
    has_rows_of_images: ClassVar[bool] = True

    def __init__(self, p: float, features: int) -> None:
        super().__init__(p)
        self.features = features
        self.mask: Tensor | None = None

    def draw(self, seed: int, step: int, place: int, images: int, parts: int) -> Float64:
        """Draw the mask of one update, for all parts of its batch; ones in evaluation mode."""
        return draw_dropout_mask(seed, step, place, (images, self.features), self.p if self.training else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of an activation of shape (N, features), in training only."""
        if not self.training or self.p == 0:
            return x
        return super().forward(x) if self.mask is None else x * self.mask


class DropoutMasks:
    """The masks of all ``MaskedDropout`` modules of a model, and of what draws in a translated model.

    Args:
        model: May have none of them. A dropout's place is its index among them.
        seed: Of the run.
        always: Whether dropouts in evaluation mode get masks too, which are then ones: a graph that serves several
            phases takes the same number of masks in each.
        share: Which images of each batch the model gets; it takes their rows of the masks of the whole update.
    """

    def __init__(self, model: Module, seed: int, always: bool = False, share: Share = WHOLE) -> None:
        self._seed = seed
        self._always = always
        self._share = share
        self._dropouts: list[MaskedDropout | RandomPlace] = []
        for module in model.modules():
            if isinstance(module, MaskedDropout):
                self._dropouts.append(module)
            elif isinstance(module, Translated):
                self._dropouts += module.layered_lr_passes.places

    def draw(self, step: int, images: int, parts: int, shape: tuple[int, ...]) -> list[Float64]:
        """Draw the masks of one update, one for each dropout that is in use.

        Args:
            step: The update.
            images: How many images the update has, in all parts and in all processes.
            parts: How many parts the batch comes in.
            shape: Of an image, (C, H, W).
        """
        return [
            self._own(_at(dropout, shape).draw(self._seed, step, place, images, parts), images, parts, dropout)
            for place, dropout in enumerate(self._dropouts)
            if self._is_used(dropout)
        ]

    def _own(self, mask: Float64, images: int, parts: int, dropout: MaskedDropout | RandomPlace) -> Float64:
        """The rows of this process's images, of each part one after the other."""
        if self._share.count == 1 or not dropout.has_rows_of_images:
            return mask
        by_image = mask.reshape(images, -1, *mask.shape[1:])  # an image may have several rows
        return by_image[self._share.rows(images, parts)].reshape(-1, *mask.shape[1:])

    def insert(self, masks: Sequence[Tensor]) -> None:
        """Give each dropout its mask, for the next forward pass or for the trace of a graph."""
        for dropout, mask in zip(filter(self._is_used, self._dropouts), masks, strict=True):
            dropout.mask = mask

    def remove(self) -> None:
        """Take the masks away: the dropouts draw their own again."""
        for dropout in self._dropouts:
            dropout.mask = None

    def _is_used(self, dropout: MaskedDropout | RandomPlace) -> bool:
        return bool((dropout.training or self._always) and dropout.p > 0)


def _at(dropout: MaskedDropout | RandomPlace, shape: tuple[int, ...]) -> MaskedDropout | RandomPlace:
    return dropout.at_shape(shape) if isinstance(dropout, RandomPlace) else dropout


def find_random_modules(model: Module) -> tuple[str, ...]:
    """Find the modules of a user's model that draw random numbers in training, by name."""
    return tuple(
        name
        for name, module in model.named_modules()
        if type(module).__name__ in _RANDOM and getattr(module, "p", 1) != 0 and not isinstance(module, TranslatedPart)
    )


def find_seedable_dropouts(model: Module) -> dict[str, Module]:
    """Find the dropouts of a user's model that have a random generator of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is flow.nn.Dropout and getattr(module, "generator", None) is not None
    }


def seed_dropouts(dropouts: Iterable[Module], seed: int, step: int, device: str) -> None:
    """Seed each dropout from the run's seed, the update, and its place among the dropouts.

    OneFlow 0.9 cannot restore a generator: its ``get_state`` leaves out how many numbers of the present block were
    drawn. Each dropout gets a new generator, because earlier updates may still be drawing from the old one.
    """
    for place, dropout in enumerate(dropouts):
        dropout.generator = flow.Generator(device)
        drawn = np.random.default_rng([seed, _STREAM, step, place]).integers(2**31)
        dropout.generator.manual_seed(int(drawn))
