"""Which functions are running: the stack of calls."""

from __future__ import annotations

import sys


def is_called_by(*files: str) -> bool:
    """Whether a function of one of these files, such as ``"torch/utils/checkpoint.py"``, is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(files):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
