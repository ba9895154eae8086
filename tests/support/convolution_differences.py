"""How far convolutions of translated models are from torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from layered_lr_oneflow.operators.convolutions import choose_form, convolve
from layered_lr_oneflow.runtime import flow


class Layer(flow.nn.Module):  # type: ignore[misc]
    def __init__(self, arrays: list[Any], sizes: tuple[Any, ...]) -> None:
        super().__init__()
        self.weight, self.bias, self.x = (flow.nn.Parameter(flow.tensor(array)) for array in arrays)
        self.sizes = sizes

    def forward(self, upstream: Any) -> Any:
        made = convolve(self.x * 1, self.weight, self.bias, *self.sizes)
        (made * upstream).sum().backward()
        return made


class Graph(flow.nn.Graph):  # type: ignore[misc]
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.parameters_of_layer = layer, list(layer.parameters())
        self.config._train(True)

    def build(self, upstream: Any) -> Any:
        return (self.layer(upstream), *(each.grad for each in self.parameters_of_layer))


def differences(cases: list[Any]) -> list[tuple[str, float, float, float]]:
    """The form of each case, and how far it is from torch: in eager mode, in a graph, and in eager float32."""
    functions = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d, 5: torch.nn.functional.conv3d}
    found = []
    for case in cases:  # JSON makes lists of tuples
        shape, weight_shape, *sizes = (tuple(part) if isinstance(part, list) else part for part in case)
        rng = np.random.default_rng(len(found))
        arrays = [rng.normal(size=size) for size in (weight_shape, weight_shape[:1], shape)]
        weight, bias, x = (torch.tensor(array, requires_grad=True) for array in arrays)
        answer = functions[len(shape)](x, weight, bias, *sizes)
        upstream = rng.normal(size=answer.shape)
        answer.backward(torch.tensor(upstream))
        theirs = [each.detach().numpy() for each in (answer, weight.grad, bias.grad, x.grad)]

        def far(ours: Any, theirs: list[Any] = theirs) -> float:
            pairs = zip(ours, theirs, strict=True)
            return max(float(np.abs(one.numpy() - other).max() / np.abs(other).max()) for one, other in pairs)

        distances = []
        for dtype in ("float64", "float32"):
            layer = Layer([array.astype(dtype) for array in arrays], tuple(sizes))
            made = layer(flow.tensor(upstream.astype(dtype)))
            distances.append(far([made.detach(), *(each.grad for each in layer.parameters())]))
        graph = Graph(Layer(arrays, tuple(sizes)))
        choice = choose_form(tuple(shape), tuple(weight_shape), *sizes)
        in_graph = far(graph(flow.tensor(upstream)))
        found.append((choice.form.name if choice else "OneFlow's own", distances[0], in_graph, distances[1]))
    return found
