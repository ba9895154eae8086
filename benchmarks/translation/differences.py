"""Compares a torch model with what it is translated to: answers and gradients, in both modes, eager and in a graph."""

from __future__ import annotations

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


class Passed(NamedTuple):
    """What a forward and a backward pass gave.

    Args:
        answers: What the model returned.
        gradients: Of each parameter that got one.
        buffers: After the pass.
    """

    answers: Arrays
    gradients: Arrays
    buffers: Arrays


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
    shake_statistics(model)
    x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    traced = trace_model(model, (x,))
    translated, again = (build_translated(traced) for _ in range(2))
    assert list(translated.state_dict()) == list(model.state_dict())
    model.eval(), translated.eval()
    with torch.no_grad(), flow.no_grad():
        answers = find_difference(_numbers(model(torch.from_numpy(x))), _numbers(translated(flow.tensor(x))))
    theirs = pass_through_torch(model.train(), x)
    ours = pass_through_oneflow(translated.train(), x)
    answers = max(answers, find_difference(theirs.answers, ours.answers))
    graph = 0.0
    if in_graph:
        found = pass_through_graph(again.train(), x)
        graph = max(find_difference(one, two) for one, two in zip(ours, found, strict=True))
    gradients, buffers = (find_difference(getattr(theirs, kind), getattr(ours, kind)) for kind in Passed._fields[1:])
    return Differences(answers, gradients, buffers, graph)


def shake_statistics(model: Any) -> None:
    """Give the batch normalisations of a torch model running statistics as training leaves them."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def pass_through_torch(model: Any, x: NDArray[Any]) -> Passed:
    """Pass a batch through a torch model, forwards and backwards, in the mode that it is in."""
    model.zero_grad()
    output = model(torch.from_numpy(x))
    _total(output).backward()
    return Passed(_numbers(output), _gradients(model), {name: b.numpy().copy() for name, b in model.named_buffers()})


def pass_through_oneflow(model: Any, x: NDArray[Any]) -> Passed:
    """Pass a batch through a translated model, likewise, in eager mode."""
    _forget_gradients(model)
    output = model(flow.tensor(x))
    _total(output).backward()
    return Passed(_numbers(output), _gradients(model), _buffers(model))


def pass_through_graph(model: Any, x: NDArray[Any]) -> Passed:
    """Pass a batch through a translated model, likewise, in a graph."""
    _forget_gradients(model)
    graph = _Graph(model)
    graph.parameters_of_model = dict(model.named_parameters())
    found = graph(flow.tensor(x))
    numbers = [tensor.numpy().copy() for tensor in (found if isinstance(found, tuple | list) else (found,))]
    count = len(numbers) - len(graph.names)
    gradients = dict(zip(graph.names, numbers[count:], strict=True))
    return Passed({str(key): numbers[key] for key in range(count)}, gradients, _buffers(model))


def find_difference(first: Arrays, second: Arrays) -> float:
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


def _forget_gradients(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None  # a graph would add to it


def _gradients(model: Any) -> Arrays:
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


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
