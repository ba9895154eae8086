"""Numbers that a parameter's update keeps for its next update in a graph, such as the count of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from layered_lr.arrays import Array, Slots
from layered_lr_oneflow.eager_tensors import write_tensor
from layered_lr_oneflow.oneflow_types import Device, LazyLookup, Tensor
from layered_lr_oneflow.rules import Number, Scalars, assign
from layered_lr_oneflow.runtime import flow


class ParameterCounters:
    """The counters of all parameters of one update rule: for each counter one float64 vector over the parameters.

    So they are as cheap for 158 parameters as for one.

    Args:
        names: The names of the parameters.
        start: The first value of each counter, by the counter's name.
        device: Of the parameters.

    Attributes:
        vectors: By the counter's name.
    """

    def __init__(self, names: Sequence[str], start: Mapping[str, float], device: Device) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self.vectors: Mapping[str, Tensor] = {
            counter: flow.tensor(np.full(len(names), float(value)), device=device) for counter, value in start.items()
        }

    def trace(self, lazy: LazyLookup) -> Scalars:
        """The counters before the update, as tensors of the graph that is being traced."""
        return {counter: lazy(vector, counter) for counter, vector in self.vectors.items()}

    def advance(self, old: Scalars, new: Scalars, trained: Sequence[str]) -> None:
        """Write the counters after the update.

        Args:
            old: From ``trace``.
            new: The values after the update.
            trained: Names of the parameters that the graph updates; the others keep their values.
        """
        moves = np.zeros(len(self._index), dtype=bool)
        moves[[self._index[name] for name in trained]] = True
        edges = [0, *(np.flatnonzero(np.diff(moves)) + 1).tolist(), len(moves)]
        for counter, values in new.items():
            if not moves.all():
                pieces = [(values if moves[i] else old[counter])[i:j] for i, j in pairwise(edges)]
                values = flow.cat(pieces)
            assign(old[counter], values)

    def pick(self, scalars: Scalars, name: str, shape: tuple[int, ...]) -> Scalars:
        """Pick one parameter's numbers from those computed for all; their shape does not widen the parameter's."""
        return {key: self._pick_one(value, self._index[name], shape) for key, value in scalars.items()}

    def _pick_one(self, value: Number, index: int, shape: tuple[int, ...]) -> Number:
        if not isinstance(value, flow.Tensor):
            return value
        one = value if value.shape[0] == 1 else value[index : index + 1]
        return one if shape else flow.reshape(one, ())

    def read(self, name: str) -> dict[str, Array]:
        """Copy a parameter's counters, float64 of shape (); OneFlow must have finished its work before."""
        return {counter: vector.numpy()[self._index[name]].copy() for counter, vector in self.vectors.items()}

    def load(self, values: Slots) -> None:
        """Go on from counters of every parameter, by parameter and counter, as ``read`` returns them."""
        for counter, vector in self.vectors.items():
            write_tensor(vector, np.array([values[name][counter] for name in self._index], dtype=np.float64))
