"""Names of what a run measures by itself."""

from __future__ import annotations

OWN_NAMES = ("loss", "accuracy")
"""Which each run measures whose targets are class numbers."""

EMA_ACCURACY = "ema accuracy"
"""Of the moving average, with ``ema_decay``."""

TEST_LOSS = "test loss"
"""Which a run measures whose targets are no class numbers."""
