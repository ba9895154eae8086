"""torch's own files of weights: ``.pth`` and ``.pt``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read a table from a ``.pth`` or ``.pt`` file to the CPU; nothing but tensors is ever unpickled.

    Raises:
        Exception: Any error of torch, pickle or zip, if the file is not one that torch wrote.
    """
    loaded = read_checkpoint(path)
    return dict(loaded)


def read_checkpoint(path: Path) -> Any:
    """Read tensors, numbers, texts and containers of them that torch saved, to the CPU.

    Raises:
        Exception: Any error of torch, pickle or zip, if the file is not one that torch wrote or holds other objects.
    """
    return torch.load(path, map_location="cpu", weights_only=True)
