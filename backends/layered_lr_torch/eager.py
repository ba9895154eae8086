"""Backend ``torch-eager``: torch runs each operation by itself."""

from __future__ import annotations

from typing import ClassVar, final

from layered_lr_torch.backend import TorchBackend
from layered_lr_torch.shared_draws import may_draw
from layered_lr_torch.torch_types import Module


@final
class TorchEager(TorchBackend):
    """torch, op by op."""

    name: ClassVar[str] = "torch-eager"

    def build_forward(self, model: Module) -> Module:
        """Return the model itself."""
        return model

    def share_draws(self, model: Module, batch_shape: tuple[int, ...]) -> None:
        """Let a user's model draw its random numbers from the run's seed, as its translation does on OneFlow."""
        setattr(model, "shares_masks", may_draw(model, batch_shape))  # noqa: B010 # torch types attributes as tensors
