"""Compares a torch model with what it is translated to: answers and gradients, in both modes, eager and in a graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import oneflow as flow
import torch
from numpy.typing import NDArray

from layered_lr.arrays import Arrays
from layered_lr_oneflow.build_model import build_translated
from layered_lr_torch.trace_model import trace_model


class Differences(NamedTuple):
    """Largest differences from torch, relative to the largest number of each.

    Args:
        answers: Of what the model returns, in evaluation mode and in training mode.
        gradients: Of each parameter, in training mode.
        buffers: Of each buffer after a pass in training mode.
        graph: Of the answers, gradients and buffers of a graph from those of eager mode.
    """

    answers: float
    gradients: float
    buffers: float
    graph: float


def compare(
    make: Callable[[], Any], shape: tuple[int, ...], dtype: str = "float64", *, in_graph: bool = True, seed: int = 0
) -> Differences:
    """Compare a model with its translation.

    Args:
        make: Makes the torch model. It must draw nothing at random in training mode.
        shape: Of a batch.
        dtype: To compute in.
        in_graph: Whether to compile a graph as well.
        seed: Of weights and inputs.
    """
    torch.manual_seed(seed)
    model = make().to(getattr(torch, dtype))
    _shake_statistics(model)
    x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    translated = build_translated(trace_model(model, (x,)))
    assert list(translated.state_dict()) == list(model.state_dict())
    untrained = copy.deepcopy(model)
    answers = []
    model.eval(), translated.eval()
    with torch.no_grad(), flow.no_grad():
        answers.append(_far(_numbers(model(torch.from_numpy(x))), _numbers(translated(flow.tensor(x)))))
    model.train(), translated.train()
    theirs = _train_torch(model, x)
    ours = _train_oneflow(translated, x)
    answers.append(_far(theirs[0], ours[0]))
    graph = 0.0
    if in_graph:
        again = build_translated(trace_model(untrained, (x,)))
        graph = max(_far(one, two) for one, two in zip(ours, _train_graph(again, x), strict=True))
    return Differences(max(answers), _far(theirs[1], ours[1]), _far(theirs[2], ours[2]), graph)


def _shake_statistics(model: Any) -> None:
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def _numbers(output: Any) -> Arrays:
    if not isinstance(output, dict | tuple | list):
        return {"": output.detach().numpy().copy()}
    parts: Iterable[tuple[Any, Any]] = output.items() if isinstance(output, dict) else enumerate(output)
    return {f"{key}.{name}": array for key, part in parts if part is not None for name, array in _numbers(part).items()}


def _total(output: Any) -> Any:
    """A number that depends on every element of the output in another way."""
    if isinstance(output, dict):
        return sum(_total(part) for part in output.values())
    if isinstance(output, tuple | list):
        return sum(_total(part) for part in output if part is not None)
    if output.dtype not in (torch.float32, torch.float64, flow.float32, flow.float64):
        return 0.0
    return (output * output).sum() * 0.1 + output.sum() * 0.01


def _train_torch(model: Any, x: NDArray[Any]) -> tuple[Arrays, Arrays, Arrays]:
    model.zero_grad()
    output = model(torch.from_numpy(x))
    _total(output).backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    return _numbers(output), gradients, {name: b.numpy().copy() for name, b in model.named_buffers()}


def _train_oneflow(model: Any, x: NDArray[Any]) -> tuple[Arrays, Arrays, Arrays]:
    output = model(flow.tensor(x))
    _total(output).backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    return _numbers(output), gradients, _buffers(model)


def _buffers(model: Any) -> Arrays:
    return {name: b.numpy().copy() for name, b in model.named_buffers() if not name.startswith("layered_lr_constants")}


class _Graph(flow.nn.Graph):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.names: list[str] = []
        self.parameters_of_model: dict[str, Any] = {}
        self.config._train(True)

    def build(self, x: Any) -> Any:
        output = self.model(x)
        _total(output).backward()
        found = {name: p.grad for name, p in self.parameters_of_model.items() if p.grad is not None}
        self.names = list(found)
        flat = list(_flat(output))
        return (*flat, *found.values())


def _flat(output: Any) -> list[Any]:
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return [tensor for part in output if part is not None for tensor in _flat(part)]
    return [output]


def _train_graph(model: Any, x: NDArray[Any]) -> tuple[Arrays, Arrays, Arrays]:
    model.train()
    graph = _Graph(model)
    graph.parameters_of_model = dict(model.named_parameters())
    answers = graph(flow.tensor(x))
    answers = answers if isinstance(answers, tuple | list) else (answers,)
    numbers = [tensor.numpy().copy() for tensor in answers]
    count = len(numbers) - len(graph.names)
    keys = list(range(count))
    gradients = dict(zip(graph.names, numbers[count:], strict=True))
    return {str(key): numbers[key] for key in keys}, gradients, _buffers(model)


def _far(first: Arrays, second: Arrays) -> float:
    """The largest difference of arrays in the same order, relative to the largest number of each."""
    assert len(first) == len(second), (list(first), list(second))
    largest = 0.0
    for (name, one), two in zip(first.items(), second.values(), strict=True):
        assert one.shape == two.shape, (name, one.shape, two.shape)
        one, two = one.astype(np.float64), two.astype(np.float64)
        assert (np.isfinite(one) == np.isfinite(two)).all(), name
        finite = np.isfinite(one)
        if finite.any():
            largest = max(largest, float(np.abs(one - two)[finite].max() / max(np.abs(one[finite]).max(), 1e-6)))
    return largest
