"""Backend ``torch-eager``: torch runs each operation by itself."""

from __future__ import annotations

from typing import ClassVar, final

from layered_lr_torch.backend import TorchBackend
from layered_lr_torch.torch_types import Module


@final
class TorchEager(TorchBackend):
    """torch, op by op."""

    name: ClassVar[str] = "torch-eager"

    def build_forward(self, model: Module) -> Module:
        """Return the model itself."""
        return model
