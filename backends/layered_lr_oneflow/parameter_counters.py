"""The numbers that each parameter's updates carry on from one to the next, such as its count of them, in a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr_oneflow.rate_buffers import copy
from layered_lr_oneflow.rules import Number, Scalars, assign
from layered_lr_oneflow.runtime import flow


class CarriedNumbers:
    """One vector of float64 for each number, over the parameters of one rule: as cheap for 158 of them as for one.

    Args:
        names: The parameters'.
        start: What each number begins as, by its name.
        device: Of the parameters.
    """

    def __init__(self, names: Sequence[str], start: Mapping[str, float], device: Any) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self.vectors = {
            number: flow.tensor(np.full(len(names), float(value)), device=device) for number, value in start.items()
        }

    def trace(self, lazy: Callable[[Any, str], Any]) -> Scalars:
        """The numbers before the update, as tensors of the graph that is being traced."""
        return {number: lazy(vector, number) for number, vector in self.vectors.items()}

    def advance(self, old: Scalars, new: Scalars, trained: Sequence[str]) -> None:
        """Write the numbers after the update, of those parameters that the graph updates."""
        moves = np.zeros(len(self._index), dtype=bool)
        moves[[self._index[name] for name in trained]] = True
        edges = [0, *(np.flatnonzero(np.diff(moves)) + 1).tolist(), len(moves)]
        for number, values in new.items():
            if not moves.all():
                pieces = [(values if moves[i] else old[number])[i:j] for i, j in pairwise(edges)]
                values = flow.cat(pieces)
            assign(old[number], values)

    def pick(self, scalars: Scalars, name: str, shape: tuple[int, ...]) -> Scalars:
        """One parameter's part of what was computed for all, in a shape that does not widen the parameter's."""
        return {key: self._picked(value, self._index[name], shape) for key, value in scalars.items()}

    def _picked(self, value: Number, index: int, shape: tuple[int, ...]) -> Number:
        if not isinstance(value, flow.Tensor):
            return value
        one = value if value.shape[0] == 1 else value[index : index + 1]
        return one if shape else flow.reshape(one, ())

    def of(self, name: str) -> dict[str, NDArray[Any]]:
        """A parameter's numbers now, float64, shape (); the graph must have come to rest."""
        return {key: vector.numpy()[self._index[name]].copy() for key, vector in self.vectors.items()}

    def load(self, values: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Go on from numbers as ``of`` gives them, for every parameter."""
        for key, vector in self.vectors.items():
            copy(vector, np.array([values[name][key] for name in self._index], dtype=np.float64))
