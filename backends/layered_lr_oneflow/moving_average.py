"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layered_lr.arrays import Weights
from layered_lr.state.training_state import find_masks
from layered_lr_oneflow import models
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.rules.base import lerp
from layered_lr_oneflow.runtime import flow


class MovingAverage:
    """The average of every floating parameter and buffer of a model.

    After the first update the average is the weights; each later update moves it by ``1 - decay`` of the way. It uses
    eager ops, also when a graph trains: OneFlow runs them and the graph's calls in their order, without a wait.

    Args:
        model: Its floating parameters and buffers are averaged.
        decay: Share of the average that stays at each update, 0 to below 1.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._averages: dict[str, Tensor] = {}
        self._masks = find_masks(models.copy_all(model), [name for name, _ in model.named_parameters()])

    def update(self) -> None:
        """Add the present weights to the average, after an update; waits for nothing."""
        with flow.no_grad():
            for name, tensor in self._find_floating().items():
                if name in self._averages:
                    average = self._averages[name]
                    average.copy_(lerp(average, tensor, 1 - self._decay))
                else:
                    self._averages[name] = tensor.detach().clone()

    def load(self, averages: Weights) -> None:
        """Go on from saved averages, by name; where one is missing, from the present weight.

        An empty mapping means that there was no update.
        """
        self._averages = {
            name: flow.tensor(averages[name], dtype=tensor.dtype, device=tensor.device)
            if name in averages
            else tensor.detach().clone()
            for name, tensor in self._find_floating().items()
            if averages
        }

    def get_tensors(self) -> dict[str, Tensor]:
        """The averages, by every name that the model has for them; before the first update, the weights themselves."""
        shared = {id(tensor): self._averages.get(name, tensor) for name, tensor in self._find_floating().items()}
        named = models.find_tensors(self._model).items()
        return {name: shared[id(tensor)] for name, tensor in named if id(tensor) in shared}

    @contextmanager
    def use_averages(self) -> Iterator[None]:
        """Let the model hold the averages inside of a ``with`` block, and its own weights after it.

        The values are copied; the tensors stay, because a compiled graph, and modules such as LSTM, keep the old ones.
        """
        floating = self._find_floating()
        kept = {name: tensor.detach().clone() for name, tensor in floating.items()}
        try:
            _copy(floating, self._averages)
            yield
        finally:
            _copy(floating, kept)

    def _find_floating(self) -> dict[str, Tensor]:
        """Find what is averaged, each tensor once; found anew each time, as a forward pass may replace buffers."""
        found: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in models.find_tensors(self._model).items():
            if tensor.is_floating_point() and name not in self._masks:
                found.setdefault(id(tensor), (name, tensor))
        return dict(found.values())


def _copy(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    with flow.no_grad():
        for name, source in sources.items():
            targets[name].copy_(source)
