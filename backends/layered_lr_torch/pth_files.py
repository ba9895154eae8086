"""torch's own files of weights: ``.pth`` and ``.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from layered_lr.files import UnreadableError


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read a table from a ``.pth`` or ``.pt`` file to the CPU; nothing but tensors is ever unpickled.

    Raises:
        UnreadableError: It holds something else than a table.
        Exception: Any error of torch, pickle or zip, if the file is not one that torch wrote.
    """
    loaded = read_checkpoint(path)
    if not isinstance(loaded, Mapping):
        raise UnreadableError(f"it holds a {type(loaded).__name__}, and no table of tensors by name")
    return dict(loaded)


def read_checkpoint(path: Path) -> Any:
    """Read tensors, numbers, texts and containers of them that torch saved, to the CPU.

    Raises:
        Exception: Any error of torch, pickle or zip, if the file is not one that torch wrote or holds other objects.
    """
    return torch.load(path, map_location="cpu", weights_only=True)
