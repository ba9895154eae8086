"""Which functions are running: the stack of calls."""

from __future__ import annotations

import sys

OWN_PACKAGES = ("torch", "layered_lr", "layered_lr_torch", "layered_lr_oneflow")
"""Whose lines are no lines of the user's model."""


def is_called_by(*files: str) -> bool:
    """Whether a function of one of these files, such as ``"torch/utils/checkpoint.py"``, is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(files):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
