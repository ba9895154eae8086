"""Calls a training graph: compiles it at first, checks what it is given, counts its forward passes."""

from __future__ import annotations

import threading
import time
from typing import Any

from layered_lr.arrays import Array
from layered_lr.console import say
from layered_lr.errors import DataError, Unsupported
from layered_lr.models.nn_modules import list_modules
from layered_lr_oneflow.oneflow_types import Graph, Module, Tensor
from layered_lr_oneflow.translated_parts import TranslatedPart


class GraphCaller:
    """Calls one graph, always with the batch shape that it was compiled for, and counts its forward passes.

    Attributes:
        made: Whether there was a call.
        passes: How many forward passes the model's own counters have not counted.
        compile_seconds: How long compiling took; 0.0 before the first call.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self.made = False
        self.passes = 0
        self.compile_seconds = 0.0

    def run(self, graph: Graph, *arguments: Tensor) -> Any:
        """Call the graph. The first call compiles it, after a notice on stderr."""
        if not graph._is_compiled:
            say("oneflow-graph: compiling the model at the first update, which takes some seconds.")
            began = time.perf_counter()
            graph._compile(*arguments)
            self.compile_seconds += time.perf_counter() - began
        return graph(*arguments)

    def count_passes(self, passes: int) -> None:
        """Count so many forward passes of the graph."""
        self.made = True
        self.passes += passes

    def check_call(self, images: Tensor) -> None:
        """Refuse images that the graph cannot be called with.

        Raises:
            DataError: They have another shape than at the first call.
            Unsupported: This is the first call, which compiles the graph, and it is not in the main thread.
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

    def add_passes(self, state: dict[str, Array], model: Module) -> dict[str, Array]:
        """Add the passes to each ``num_batches_tracked``: a graph updates the statistics, but does not count.

        Args:
            state: The model's state, as arrays; changed in place.
            model: Its modules in evaluation mode count nothing.

        Returns:
            The same state.
        """
        for prefix, module in list_modules(model):
            counter = f"{prefix}num_batches_tracked"
            if module.training and counter in state and not isinstance(module, TranslatedPart):  # those count
                state[counter] += self.passes
        return state
