"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr_torch.models import to_array


class MovingAverage:
    """What torch's ``AveragedModel`` keeps with ``get_ema_multi_avg_fn`` and buffers, without a second model.

    Args:
        model: Whose parameters and floating buffers are averaged; they may be replaced by others of their names.
        decay: Share of the average that stays at each update.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.model = model
        self._weight = 1 - decay
        self._begun = False
        places = [
            (prefix + name, store, name)
            for prefix, module in _modules(model)
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None and (tensor.is_floating_point() or tensor.is_complex())
        ]
        once = {id(store[name]): (store, name) for _, store, name in reversed(places)}  # tied weights
        self._places = list(once.values())
        self._averages = [tensor.detach().clone() for tensor in self._live()]
        slots = {key: slot for slot, key in enumerate(once)}
        self._slots = {full: slots[id(store[name])] for full, store, name in places}

    def _live(self) -> list[torch.Tensor]:
        return [store[name].detach() for store, name in self._places]  # type: ignore[union-attr]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an update in; waits for nothing."""
        if self._begun:
            torch._foreach_lerp_(self._averages, self._live(), self._weight)
        else:
            torch._foreach_copy_(self._averages, self._live())
            self._begun = True

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, NDArray[Any]], has_begun: bool) -> None:
        """Go on from what ``arrays`` gave, before or after the first update; from the weights where it is empty."""
        for average, live in zip(self._averages, self._live(), strict=True):
            average.copy_(live)
        for name, slot in self._slots.items():
            if name in arrays:
                self._averages[slot].copy_(torch.from_numpy(np.array(arrays[name])))
        self._begun = has_begun and bool(arrays)

    def forward(self, images: torch.Tensor) -> Any:
        """The model's answer with the averages in the place of the weights."""
        averages = {name: self._averages[slot] for name, slot in self._slots.items()}
        return torch.func.functional_call(self.model, averages, (images,))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """A copy of the averages, and of whatever is no floating number as the model has it, by name."""
        averages = {
            id(store[name]): average for (store, name), average in zip(self._places, self._averages, strict=True)
        }
        state = self.model.state_dict(keep_vars=True)
        return {name: to_array(averages.get(id(tensor), tensor)) for name, tensor in state.items()}


def _modules(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [(f"{name}." if name else "", module) for name, module in model.named_modules(remove_duplicate=False)]
