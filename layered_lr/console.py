"""Messages on stderr for the person who watches a run."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print one line on stderr without breaking a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"layered_lr: {message}", file=sys.stderr)
