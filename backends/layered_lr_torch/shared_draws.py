"""Random numbers of a user's model from the run's seed, so that a comparison has the same on every backend.

A translated model draws them so on OneFlow. On torch a mode stands in for the functions that draw, in the same order.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from layered_lr.models.dropout_masks import draw_dropout_mask, draw_trials, draw_uniform, shape_of_all_parts
from layered_lr_torch.function_copies import FunctionCopies
from layered_lr_torch.torch_types import Forward, Module, Tensor
from layered_lr_torch.trace_layers import scaled_dot_product_attention
from layered_lr_torch.trace_names import name_of

_DROPOUTS = ("dropout", "feature_dropout")


class SharedDraws(TorchFunctionMode):
    """Lets a forward pass take its random numbers from the run's seed. It has the verbs of ``DropoutMasks``.

    Args:
        seed: Of the run.

    Attributes:
        has_work: Always true.
        drawn: How many places of the last forward pass may draw.
    """

    has_work = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed, self._step, self._part, self._parts = seed, 0, 0, 1
        self._copies = FunctionCopies()
        self.drawn = 0

    def draw(self, step: int, images: int, parts: int, like: Tensor) -> None:
        """Begin an update."""
        self._step, self._parts = step, parts

    def insert(self, part: int) -> None:
        """Begin a part of the update's batch."""
        self._part = part

    def remove(self) -> None:
        """End the update."""

    def wrap(self, forward: Forward) -> Forward:
        """Let a forward pass run in this mode."""

        def run(images: Tensor) -> Any:
            self.drawn = 0
            with self:
                return forward(images)

        return run

    def __torch_function__(
        self, func: Any, types_: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name, in_place = name_of(func)
        if name == "scaled_dot_product_attention" and (kwargs.get("dropout_p") or (len(args) > 4 and args[4])):
            with self:
                return scaled_dot_product_attention(*args, **kwargs)
        looked_into = self._copies.run(self, func, args, kwargs)
        if looked_into is not NotImplemented:
            return looked_into
        if name in _DROPOUTS:
            return self._drop(in_place, name == "feature_dropout", *args, **kwargs)
        if name in ("bernoulli", "uniform", "rand", "rand_like"):
            return self._fill(name, func, args, kwargs)
        return func(*args, **kwargs)

    def _drop(self, in_place: bool, whole_features: bool, input: Tensor, p: float, train: bool) -> Tensor:
        if p == 0:
            return input
        place = self._next_place()
        if not train:
            return input
        shape = (*input.shape[:2], *(1 for _ in input.shape[2:])) if whole_features else tuple(input.shape)
        mask = self._take(draw_dropout_mask(self._seed, self._step, place, self._whole(shape), p), shape)
        factors = torch.from_numpy(mask).to(input.device, input.dtype)
        return input.mul_(factors) if in_place else input * factors

    def _fill(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        made: Tensor = func(*args, **kwargs)
        place, shape = self._next_place(), tuple(made.shape)
        if name == "bernoulli":
            p = float(kwargs["p"] if "p" in kwargs else args[1])
            numbers = draw_trials(self._seed, self._step, place, self._whole(shape), p)
        else:
            numbers = draw_uniform(self._seed, self._step, place, self._whole(shape))
        with torch.no_grad():
            return made.copy_(torch.from_numpy(self._take(numbers, shape)))

    def _next_place(self) -> int:
        self.drawn += 1
        return self.drawn - 1

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape_of_all_parts(shape, self._parts)

    def _take(self, numbers: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Take the present part's share of the numbers."""
        return np.array(np.split(numbers, self._parts)[self._part]).reshape(shape)


def may_draw(model: Module, batch_shape: tuple[int, ...]) -> bool:
    """Find whether a model draws random numbers in training that a ``SharedDraws`` stands in for; it stays as it is."""
    tried, draws = copy.deepcopy(model), SharedDraws(0)
    some = next(parameter for parameter in tried.parameters() if parameter.is_floating_point())
    tried.train()
    with torch.no_grad(), contextlib.suppress(Exception):  # the first update raises it too, and is said to have failed
        draws.wrap(tried)(torch.zeros(batch_shape, dtype=some.dtype, device=some.device))
    return draws.drawn > 0
