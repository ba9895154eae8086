"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from layered_lr.arrays import Array, Weights
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.models import copy_array_into, find_tensors, to_array
from layered_lr_torch.sharding import get_part, is_sharded
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
            for prefix, module in list_modules(model)
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None and _has_average(tensor)
        ]
        once = {id(store[name]): (store, name) for _, store, name in reversed(places)}  # tied weights
        self._places = list(once.values())
        self._averages = [tensor.detach().clone() for tensor in self._get_members()]
        self._is_sharded = any(map(is_sharded, self._averages))
        self._parts = [get_part(average) for average in self._averages]
        indices = {key: index for index, key in enumerate(once)}
        self._index = {full: indices[id(store[name])] for full, store, name in places}

    def _get_members(self) -> list[Tensor]:
        """The tensors that the model's modules hold now."""
        return [store[name] for store, name in self._places]

    def _get_weights(self) -> list[Tensor]:
        """What this process holds of the tensors."""
        if self._is_sharded:
            return [get_part(tensor).detach() for tensor in self._get_members()]
        return [tensor.detach() for tensor in self._get_members()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the average, after an update; waits for nothing."""
        if self._begun:
            torch._foreach_lerp_(self._parts, self._get_weights(), self._weight)
        else:
            torch._foreach_copy_(self._parts, self._get_weights())
            self._begun = True

    @torch.no_grad()
    def load(self, averages: Weights, has_begun: bool) -> None:
        """Go on from saved averages.

        Args:
            averages: What ``copy_averages`` returned. Where a name is missing, the average is the present weight.
            has_begun: Whether they were saved after the first update.
        """
        for average, weight in zip(self._parts, self._get_weights(), strict=True):
            average.copy_(weight)
        for name, index in self._index.items():
            if name in averages:
                copy_array_into(self._averages[index], averages[name])
        self._begun = has_begun and bool(averages)

    @contextmanager
    def use_averages(self) -> Iterator[None]:
        """Let the model hold the averages inside of a ``with`` block, and its own weights after it.

        The values are copied and the tensors stay: whoever else holds them, such as a second name of a module, a plain
        list or the optimizer, sees the same.
        """
        members = self._get_members()
        weights = self._get_weights()
        kept = [weight.clone() for weight in weights]
        try:
            torch._foreach_copy_(weights, self._parts)
            yield
        finally:
            for (store, name), tensor in zip(self._places, members, strict=True):
                store[name] = tensor  # also where the forward pass has replaced it
            torch._foreach_copy_(weights, kept)

    def copy_averages(self, copy: Callable[[Tensor], Array] = to_array) -> dict[str, Array]:
        """Copy the averages to arrays by name; tensors that are not floating are copied from the model.

        Args:
            copy: Makes an array of a tensor.
        """
        return {
            name: copy(self._averages[self._index[name]] if name in self._index else tensor)
            for name, tensor in find_tensors(self.model).items()
        }

    def copy_unsaved(self) -> dict[str, Array]:
        """Copy the averages of those buffers that ``state_dict()`` leaves out, by name."""
        names = find_tensors(self.model, persistent=False)
        return {name: to_array(self._averages[self._index[name]]) for name in names if name in self._index}


def _has_average(tensor: Tensor) -> bool:
    """Whether a tensor is averaged: not whole numbers, and not a mask, whose infinities would become NaN."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return tensor.requires_grad or not bool(tensor.isinf().any())
