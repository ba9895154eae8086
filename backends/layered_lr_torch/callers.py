"""Which functions are running, and which were when an error was raised."""

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


def line_of(error: BaseException) -> str:
    """Find the innermost line of an error that is the model's own, as ``FILE:NUMBER``; empty if there is none."""
    found, frame = "", error.__traceback__
    while frame is not None:
        package = str(frame.tb_frame.f_globals.get("__name__", "")).split(".")[0]
        if package not in OWN_PACKAGES:
            found = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found
