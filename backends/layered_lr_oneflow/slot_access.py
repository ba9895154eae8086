"""Reads and writes the slots inside an eager optimizer, or inside a compiled graph, under torch's names."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import COUNTS, Array, Slots
from layered_lr.models.nn_modules import parameters_of
from layered_lr_oneflow.composed_optimizer import ComposedOptimizer
from layered_lr_oneflow.eager_tensors import sync, write_tensor
from layered_lr_oneflow.oneflow_types import Graph, Module, NativeOptimizer, Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import find_variable_names

TRAIN_STEP = "System-Train-TrainStep"
# torch's names for the slots of OneFlow's own SGD and Adagrad, in eager mode and in a graph
_EAGER = {"momentum_buf": "momentum_buffer", "sum": "sum"}
_NATIVE = {"momentum": "momentum_buffer", "sum": "sum"}


class EagerSlots:
    """The slots of an eager optimizer.

    Args:
        optimizer: OneFlow's, or a ``ComposedOptimizer``, over the parameters of ``model``.
        model: Its parameters' names are the slots' names.
    """

    def __init__(self, optimizer: NativeOptimizer, model: Module) -> None:
        self._state = optimizer._state
        self._names = {} if isinstance(optimizer, ComposedOptimizer) else _EAGER
        self._tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}

    def read(self) -> Slots:
        """Copy all slots, by parameter and slot; single numbers are float64 of shape (). Waits for OneFlow."""
        sync()
        return {
            name: {self._names.get(slot, slot): _to_array(value) for slot, value in self._state[tensor].items()}
            for name, tensor in self._tensors.items()
            if tensor in self._state
        }

    def write(self, slots: Slots) -> None:
        """Replace the slots of the parameters that are named; give each of them all of its slots."""
        back = {theirs: ours for ours, theirs in self._names.items()}
        for name, given in slots.items():
            tensor = self._tensors[name]
            taken = {slot: value for slot, value in given.items() if not self._names or slot in back}
            self._state[tensor] = {
                back.get(slot, slot): _to_value(tensor, slot, value) for slot, value in taken.items()
            }


class NativeSlots:
    """The slots of the optimizers that are compiled into a graph, and the graph's own count of updates.

    Args:
        graph: What trains the model.
        model: The model, or the part of it that the graph has, under any attribute of the graph.
    """

    def __init__(self, graph: Graph, model: Module) -> None:
        self._graph = graph
        variables = find_variable_names(graph)
        self._names = {
            variables[id(tensor)]: parameter.name
            for parameter, tensor in parameters_of(model)
            if id(tensor) in variables
        }

    def read(self) -> Slots:
        """Copy all slots, by parameter and slot; there are none until the graph is compiled or has loaded some."""
        found: dict[str, dict[str, Array]] = {}
        for key, tensor in self._variables().items():
            variable, _, slot = key.rpartition("-")
            if slot in _NATIVE and variable in self._names:
                found.setdefault(self._names[variable], {})[_NATIVE[slot]] = tensor.numpy().copy()
        return found

    def step(self) -> int:
        """How many updates the graph has counted; 0 if it has no count yet."""
        count = self._variables().get(TRAIN_STEP)
        return 0 if count is None else int(count.numpy()[0])

    def write(self, slots: Slots, step: int) -> None:
        """Replace the slots, and go on as if the graph had made ``step`` updates."""
        back = {theirs: ours for ours, theirs in _NATIVE.items()}
        arrays: dict[str, Array] = {
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
                write_tensor(variables[key], value)

    def _variables(self) -> dict[str, Tensor]:
        """What the graph holds beside its modules: live tensors, by OneFlow's names."""
        return {key: value for key, value in self._graph.state_dict().items() if isinstance(value, flow.Tensor)}


def _to_array(value: Tensor | float) -> Array:
    """Copy a slot to an array."""
    return np.array(value.numpy() if isinstance(value, flow.Tensor) else float(value))


def _to_value(tensor: Tensor, slot: str, value: Array) -> Tensor | float:
    """Turn an array into a slot: a tensor on its parameter's device, or a number."""
    if slot == "step":
        return int(value)
    if slot in COUNTS:
        return float(value)
    return flow.tensor(value, dtype=tensor.dtype, device=tensor.device)
