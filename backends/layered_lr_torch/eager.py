"""Backend ``torch-eager``: torch, op by op."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from layered_lr_torch.backend import TorchBackend


@final
class TorchEager(TorchBackend):
    """torch, op by op."""

    name: ClassVar[str] = "torch-eager"

    def forward(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model itself."""
        return model
