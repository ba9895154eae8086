"""Small models for either framework, the data to train them on, and how to read their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES, FEATURES, HIDDEN = 3, 12, 8


def unit_gradients(framework: Any, names: Sequence[str], elements: int = 2) -> Any:
    """A model whose answer to ``ones`` is the sum of all its parameters, so that every gradient is exactly 1."""

    class UnitGradients(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.register_parameter(name, framework.nn.Parameter(framework.zeros(elements)))

        def forward(self, ones: Any) -> Any:
            total = 0
            for name in names:
                total = total + (getattr(self, name) * ones).sum()
            return total

    return UnitGradients()


def ones(framework: Any, elements: int = 2) -> Any:
    """The input of ``unit_gradients``."""
    return framework.ones(elements)


def taken(model: Any, framework: Any) -> NDArray[np.float64]:
    """How far each parameter went below zero, one number each; they are set back to zero."""
    steps = []
    for parameter in model.parameters():
        values = -parameter.detach().numpy().astype(np.float64)
        assert np.all(values == values[0]), "the elements of one parameter took different steps"
        steps.append(values[0])
        with framework.no_grad():
            parameter.zero_()
    return np.array(steps)


def mlp(framework: Any, bias: bool = True) -> Callable[[], Any]:
    """What builds a two-layer tanh network for ``arrays()``: parameters ``1.weight, 1.bias, 3.weight, 3.bias``."""
    nn = framework.nn
    return lambda: nn.Sequential(
        nn.Flatten(1), nn.Linear(FEATURES, HIDDEN, bias=bias), nn.Tanh(), nn.Linear(HIDDEN, CLASSES, bias=bias)
    )


def mlp_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A start for ``mlp``, the same for every framework."""
    rng = np.random.default_rng(seed)
    shapes = {"1.weight": (HIDDEN, FEATURES), "1.bias": (HIDDEN,), "3.weight": (CLASSES, HIDDEN), "3.bias": (CLASSES,)}
    return {name: (0.5 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def arrays(train: int = 40, test: int = 11, seed: int = 0) -> tuple[NDArray[Any], ...]:
    """A little data of three classes: x_train, y_train, x_test, y_test; images are (3, 2, 2)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((train + test, 3, 2, 2)).astype(np.float32)
    y = rng.integers(0, CLASSES, train + test)
    y[:CLASSES] = range(CLASSES)
    return x[:train], y[:train], x[train:], y[train:]


def weights(model: Any) -> dict[str, NDArray[Any]]:
    """A copy of a model's parameters, by name."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def fill(model: Any, framework: Any, values: dict[str, NDArray[Any]]) -> Any:
    """The model, with these values for its parameters."""
    with framework.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(framework.tensor(values[name]))
    return model


def largest_difference(
    one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]], names: Iterable[str] | None = None
) -> float:
    """Over all arrays, which both must have alike."""
    assert one.keys() == other.keys()
    return max(float(np.max(np.abs(one[n].astype(np.float64) - other[n]), initial=0)) for n in names or one)
