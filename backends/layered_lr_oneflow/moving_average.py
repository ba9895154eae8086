"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from layered_lr_oneflow import models
from layered_lr_oneflow.rules.base import lerp
from layered_lr_oneflow.runtime import flow


class MovingAverage:
    """The average of every floating parameter and buffer of a model, as ``Session.ema_weights`` defines it.

    Ops of eager mode, also where a graph trains: OneFlow runs them and the graph's calls in the order they were asked
    for, without a wait in between.

    Args:
        model: What is averaged.
        decay: 0 to below 1.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._averages: dict[str, Any] = {}

    def update(self) -> None:
        """Take in the weights, after an update of them."""
        with flow.no_grad():
            for name, tensor in self._floating().items():
                if name in self._averages:
                    average = self._averages[name]
                    average.copy_(lerp(average, tensor, 1 - self._decay))
                else:
                    self._averages[name] = tensor.detach().clone()

    def load(self, averages: Mapping[str, NDArray[Any]]) -> None:
        """Go on from averages by name; from none, as if there had been no update."""
        self._averages = {
            name: flow.tensor(averages[name], dtype=tensor.dtype, device=tensor.device)
            for name, tensor in self._floating().items()
            if averages
        }

    def tensors(self) -> dict[str, Any]:
        """The averages by every name that the model has for them; the weights themselves before the first update."""
        shared = {id(tensor): self._averages.get(name, tensor) for name, tensor in self._floating().items()}
        named = models.tensors(self._model).items()
        return {name: shared[id(tensor)] for name, tensor in named if id(tensor) in shared}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the averages for as long as it is asked something, and its own weights after that.

        By copies, not by exchanging tensors: a graph that is compiled, and modules such as LSTM, keep the old ones.
        """
        floating = self._floating()
        kept = {name: tensor.detach().clone() for name, tensor in floating.items()}
        try:
            _copy(floating, self._averages)
            yield
        finally:
            _copy(floating, kept)

    def _floating(self) -> dict[str, Any]:
        """What is averaged, each tensor once; looked up anew, since a forward pass may put other buffers in place."""
        found: dict[int, tuple[str, Any]] = {}
        for name, tensor in models.tensors(self._model).items():
            if tensor.is_floating_point():
                found.setdefault(id(tensor), (name, tensor))
        return dict(found.values())


def _copy(targets: dict[str, Any], sources: dict[str, Any]) -> None:
    with flow.no_grad():
        for name, source in sources.items():
            targets[name].copy_(source)
