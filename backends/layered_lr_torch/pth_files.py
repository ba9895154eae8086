"""torch's own files of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a ``.pth`` or ``.pt``, by name, on the CPU; nothing but tensors is ever unpickled.

    Raises:
        Exception: Whatever torch, pickle and zip raise where the file is none.
    """
    loaded = read_checkpoint(path)
    return dict(loaded.get("state_dict", loaded))


def read_checkpoint(path: Path) -> Any:
    """Whatever tensors, numbers, texts and containers of these torch saved, on the CPU.

    Raises:
        Exception: Whatever torch, pickle and zip raise where the file is none, or holds anything else.
    """
    return torch.load(path, map_location="cpu", weights_only=True)
