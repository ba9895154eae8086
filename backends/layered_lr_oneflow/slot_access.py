"""The slots inside an eager optimizer and inside a compiled graph, read and written under torch's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.models.nn_modules import parameters_of
from layered_lr_oneflow.composed_optimizer import ComposedOptimizer
from layered_lr_oneflow.models import sync
from layered_lr_oneflow.rate_buffers import copy
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import variables_of

Held = Mapping[str, Mapping[str, NDArray[Any]]]

TRAIN_STEP = "System-Train-TrainStep"
_EAGER = {"momentum_buf": "momentum_buffer", "sum": "sum"}  # OneFlow's own optimizers that are used, and torch's names
_NATIVE = {"momentum": "momentum_buffer", "sum": "sum"}


class EagerSlots:
    """Those of an eager optimizer.

    Args:
        optimizer: OneFlow's, or a ``ComposedOptimizer``, over the parameters of ``model``.
        model: Whose names they have.
    """

    def __init__(self, optimizer: Any, model: Any) -> None:
        self._state = optimizer._state
        self._names = {} if isinstance(optimizer, ComposedOptimizer) else _EAGER
        self._tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}

    def read(self) -> Held:
        """Copies of all that there are, numbers as float64 of shape (); waits for OneFlow."""
        sync()
        return {
            name: {self._names.get(slot, slot): _array(value) for slot, value in self._state[tensor].items()}
            for name, tensor in self._tensors.items()
            if tensor in self._state
        }

    def write(self, slots: Held) -> None:
        """Take these over for the parameters in it, each with all of its slots."""
        back = {theirs: ours for ours, theirs in self._names.items()}
        for name, given in slots.items():
            tensor = self._tensors[name]
            taken = {slot: value for slot, value in given.items() if not self._names or slot in back}
            self._state[tensor] = {back.get(slot, slot): _value(tensor, slot, value) for slot, value in taken.items()}


class NativeSlots:
    """Those of the optimizers that are compiled into a graph, and the graph's own count of updates.

    Args:
        graph: What trains.
        model: What it trains, whole or in part, wherever it has it.
    """

    def __init__(self, graph: Any, model: Any) -> None:
        self._graph = graph
        variables = variables_of(graph)
        self._names = {
            variables[id(tensor)]: parameter.name
            for parameter, tensor in parameters_of(model)
            if id(tensor) in variables
        }

    def read(self) -> Held:
        """Copies of all that there are; none before the graph is compiled or has been given some."""
        found: dict[str, dict[str, NDArray[Any]]] = {}
        for key, tensor in self._variables().items():
            variable, _, slot = key.rpartition("-")
            if slot in _NATIVE and variable in self._names:
                found.setdefault(self._names[variable], {})[_NATIVE[slot]] = tensor.numpy().copy()
        return found

    def step(self) -> int:
        """The graph's count of updates, where it has one."""
        count = self._variables().get(TRAIN_STEP)
        return 0 if count is None else int(count.numpy()[0])

    def write(self, slots: Held, step: int) -> None:
        """Take these over, and go on as if the graph had made ``step`` updates."""
        back = {theirs: ours for ours, theirs in _NATIVE.items()}
        arrays: dict[str, NDArray[Any]] = {
            f"{variable}-{back[slot]}": value
            for variable, name in self._names.items()
            for slot, value in slots.get(name, {}).items()
            if slot in back
        }
        arrays[TRAIN_STEP] = np.array([step], dtype=np.int64)
        if not self._graph.is_compiled:
            self._graph.load_state_dict({key: flow.tensor(value) for key, value in arrays.items()})
            return
        variables = self._variables()
        for key, value in arrays.items():
            if key in variables:  # a parameter that the loss does not depend on has none
                copy(variables[key], value)

    def _variables(self) -> dict[str, Any]:
        """What the graph holds beside its modules, live."""
        return {key: value for key, value in self._graph.state_dict().items() if isinstance(value, flow.Tensor)}


def _array(value: Any) -> NDArray[Any]:
    """A copy."""
    return np.array(value.numpy() if isinstance(value, flow.Tensor) else float(value))


def _value(tensor: Any, slot: str, value: NDArray[Any]) -> Any:
    """A slot as a tensor beside its parameter, a number as Python's, a count as a whole one."""
    if slot == "step":
        return int(value)
    if slot == "mu_product":
        return float(value)
    return flow.tensor(value, dtype=tensor.dtype, device=tensor.device)
