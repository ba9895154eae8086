"""A Graph of one's own that answers what a model answers."""

from __future__ import annotations

from typing import Any

import oneflow as flow


class AnsweringGraph(flow.nn.Graph):  # type: ignore[misc]
    """Runs a model, and nothing else.

    Args:
        model: Of OneFlow, with one input.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def build(self, x: Any) -> Any:
        """Answer to a batch."""
        return self.model(x)
