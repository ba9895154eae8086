"""Dropout: with masks from outside in models of the library, and what a user's model draws by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from layered_lr.models.dropout_masks import draw_dropout_mask
from layered_lr_oneflow.runtime import flow

_DRAWING = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "DropPath", "StochasticDepth", "RReLU")

_STREAM = 12  # tells these draws from others of the same seed


class MaskedDropout(flow.nn.Dropout):  # type: ignore[misc] # OneFlow has no types
    """Dropout by a mask that is handed in before each forward pass; draws its own where there is none.

    Args:
        p: 0 to 1.
        features: Numbers of an image in what comes in.

    Attributes:
        mask: Shape (images, features), in the dtype of what comes in; a graph's own tensor in its trace.
    """

    shares_masks: ClassVar[bool] = True

    def __init__(self, p: float, features: int) -> None:
        super().__init__(p)
        self.features = features
        self.mask: Any = None

    def forward(self, x: Any) -> Any:
        """Shape (images, features)."""
        if not self.training or self.p == 0:
            return x
        return super().forward(x) if self.mask is None else x * self.mask


class Masks:
    """The masks of a model's own dropouts, update by update.

    Args:
        model: Its modules count in their order.
        seed: Of the run.
        always: Also for dropouts in evaluation mode, whose masks are then ones: a graph takes as many in any phase.
    """

    def __init__(self, model: Any, seed: int, always: bool = False) -> None:
        self._seed = seed
        self._always = always
        self._modules = [module for module in model.modules() if isinstance(module, MaskedDropout)]

    def draw(self, step: int, images: int) -> list[NDArray[np.float64]]:
        """What all images of an update are given by each dropout that is in use."""
        return [
            draw_dropout_mask(self._seed, step, place, (images, module.features), module.p if module.training else 0.0)
            for place, module in enumerate(self._modules)
            if self._is_used(module)
        ]

    def hand_in(self, masks: Sequence[Any]) -> None:
        """Have the next forward pass, or the trace of a graph, take these."""
        for module, mask in zip(filter(self._is_used, self._modules), masks, strict=True):
            module.mask = mask

    def take_back(self) -> None:
        """Let the dropouts draw for themselves again."""
        for module in self._modules:
            module.mask = None

    def _is_used(self, module: Any) -> bool:
        return bool((module.training or self._always) and module.p > 0)


def drawing_modules(model: Any) -> tuple[str, ...]:
    """Names of the modules of a user's model that draw random numbers in training."""
    return tuple(
        name
        for name, module in model.named_modules()
        if type(module).__name__ in _DRAWING and getattr(module, "p", 1) != 0
    )


def seedable_dropouts(model: Any) -> dict[str, Any]:
    """The dropouts of a user's model that hold a generator of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is flow.nn.Dropout and getattr(module, "generator", None) is not None
    }


def seed_dropouts(modules: Iterable[Any], seed: int, step: int, device: str) -> None:
    """Let each dropout draw what follows from the run's seed, the update and its place among them.

    OneFlow 0.9 cannot restore a generator: its ``get_state`` leaves out how many numbers have been drawn of the block
    at hand. New generators, as updates before may still be drawing from the old ones.
    """
    for place, module in enumerate(modules):
        module.generator = flow.Generator(device)
        drawn = np.random.default_rng([seed, _STREAM, step, place]).integers(2**31)
        module.generator.manual_seed(int(drawn))
