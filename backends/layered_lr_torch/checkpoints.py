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
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return dict(loaded.get("state_dict", loaded))
