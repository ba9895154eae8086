"""The exponential moving average of a model's weights."""

from __future__ import annotations

import numpy as np
import torch

from layered_lr.arrays import Array, Weights
from layered_lr_torch.models import to_array
from layered_lr_torch.torch_types import Module, Tensor


class MovingAverage:
    """Averages the same as torch's ``AveragedModel`` with ``get_ema_multi_avg_fn`` and buffers, without a second model.

    Args:
        model: Its floating parameters and buffers are averaged. Training may replace a tensor by another of its name.
        decay: Share of the average that stays at each update, 0 to below 1.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.model = model
        self._weight = 1 - decay
        self._begun = False
        places = [
            (prefix + name, store, name)
            for prefix, module in _list_modules(model)
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None and (tensor.is_floating_point() or tensor.is_complex())
        ]
        once = {id(store[name]): (store, name) for _, store, name in reversed(places)}  # tied weights
        self._places = list(once.values())
        self._averages = [tensor.detach().clone() for tensor in self._get_weights()]
        indices = {key: index for index, key in enumerate(once)}
        self._index = {full: indices[id(store[name])] for full, store, name in places}

    def _get_weights(self) -> list[Tensor]:
        return [store[name].detach() for store, name in self._places]  # type: ignore[union-attr]

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the average, after an update; waits for nothing."""
        if self._begun:
            torch._foreach_lerp_(self._averages, self._get_weights(), self._weight)
        else:
            torch._foreach_copy_(self._averages, self._get_weights())
            self._begun = True

    @torch.no_grad()
    def load(self, averages: Weights, has_begun: bool) -> None:
        """Go on from saved averages.

        Args:
            averages: What ``copy_averages`` returned. Where a name is missing, the average is the present weight.
            has_begun: Whether they were saved after the first update.
        """
        for average, weight in zip(self._averages, self._get_weights(), strict=True):
            average.copy_(weight)
        for name, index in self._index.items():
            if name in averages:
                self._averages[index].copy_(torch.from_numpy(np.array(averages[name])))
        self._begun = has_begun and bool(averages)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the model's logits with the averages in place of the weights."""
        averages = {name: self._averages[index] for name, index in self._index.items()}
        logits: Tensor = torch.func.functional_call(self.model, averages, (images,))
        return logits

    def copy_averages(self) -> dict[str, Array]:
        """Copy the averages to arrays by name; tensors that are not floating are copied from the model."""
        averages = {
            id(store[name]): average for (store, name), average in zip(self._places, self._averages, strict=True)
        }
        state = self.model.state_dict(keep_vars=True)
        return {name: to_array(averages.get(id(tensor), tensor)) for name, tensor in state.items()}


def _list_modules(model: Module) -> list[tuple[str, Module]]:
    """Every module with the prefix of its parameters' names."""
    return [(f"{name}." if name else "", module) for name, module in model.named_modules(remove_duplicate=False)]
