"""What is said to whoever watches, on stderr."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """One line on stderr, beside a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"layered_lr: {message}", file=sys.stderr)
