"""What the calls of a training graph have in common, whatever it trains."""

from __future__ import annotations

import threading
import time
from typing import Any

from layered_lr.console import say
from layered_lr.errors import DataError, Unsupported


class GraphCalls:
    """Sees to it that a graph is called as it was compiled, and counts its forward passes.

    Attributes:
        made: Whether there was a call.
        passes: Forward passes that the model's own counters do not know of.
        compile_seconds: What compiling the graph took, 0.0 before.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self.made = False
        self.passes = 0
        self.compile_seconds = 0.0

    def run(self, graph: Any, *arguments: Any) -> Any:
        """Call a graph; compile it first where it is not, which is said on stderr before."""
        if not graph._is_compiled:
            say("oneflow-graph: compiling the model at the first update (MobileNetV2: a few seconds).")
            began = time.perf_counter()
            graph._compile(*arguments)
            self.compile_seconds += time.perf_counter() - began
        return graph(*arguments)

    def count(self, passes: int) -> None:
        """Note that the graph was called so often."""
        self.made = True
        self.passes += passes

    def check(self, images: Any) -> None:
        """Refuse what the graph cannot take; its first call compiles it.

        Raises:
            DataError: Another shape than at the first call.
            Unsupported: The first call, outside of the main thread.
        """
        shape = tuple(images.shape)
        if self._shape is None:
            if threading.current_thread() is not threading.main_thread():
                raise Unsupported(
                    "backend 'oneflow-graph' compiles in the main thread only: make the first step there."
                )
            self._shape = shape
        if shape != self._shape:
            raise DataError(
                f"a batch of shape {shape}: the graph was compiled for {self._shape}. "
                "Keep to one shape (drop or pad a shorter last batch), or use backend 'oneflow-eager'."
            )

    def count_in(self, state: dict[str, Any], model: Any) -> dict[str, Any]:
        """Add the passes to ``num_batches_tracked``: a graph moves the statistics, but does not count them."""
        for name, module in model.named_modules():
            counter = f"{name}.num_batches_tracked" if name else "num_batches_tracked"
            if module.training and counter in state:
                state[counter] += self.passes
        return state
