"""A small network whose groups have optimizers of four kinds, on any framework."""

from __future__ import annotations

from typing import Any

import numpy as np

import layered_lr as ll

STEPS = 12
SHAPES = {"body": (8, 6), "mid": (8, 8), "head": (3, 8)}


def spec_of(**options: Any) -> ll.Spec:
    """Muon, SGD with momentum and Adagrad in groups, AdamW for the rest."""
    muon = ll.Muon(0.02, momentum=0.9)
    return ll.Spec(
        ll.AdamW(0.01),
        [
            ll.Group(["body.weight", "mid.weight"], name="matrices", optimizer=muon, lr_scale=0.5, weight_decay=0.2),
            ll.Group("head", optimizer=ll.SGD(0.1, momentum=0.7), schedule=ll.ExponentialLR(0.9)),
            ll.Group("mid.bias", optimizer=ll.Adagrad(0.1, initial_accumulator_value=0.1)),
        ],
        ll.CosineDecay(),
        no_weight_decay="1d",
        **options,
    )


def net(framework: Any, dtype: str = "float64") -> Any:
    nn = framework.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mid, self.head = (nn.Linear(columns, rows) for rows, columns in SHAPES.values())

        def forward(self, x: Any) -> Any:
            return self.head(framework.tanh(self.mid(framework.tanh(self.body(x)))))

    rng = np.random.default_rng(3)
    model = Net().to(getattr(framework, dtype))
    with framework.no_grad():
        for parameter in model.parameters():
            drawn = 0.5 * rng.standard_normal(tuple(parameter.shape))
            parameter.copy_(framework.tensor(drawn, dtype=getattr(framework, dtype)))
    return model


def batch(step: int) -> tuple[Any, Any]:
    rng = np.random.default_rng([4, step])
    return rng.standard_normal((5, 6)), rng.standard_normal((5, 3))


def backward(framework: Any, model: Any, step: int) -> None:
    dtype = next(iter(model.parameters())).dtype
    x, y = (framework.tensor(array, dtype=dtype) for array in batch(step))
    model.zero_grad(set_to_none=True)
    ((model(x) - y) ** 2).mean().backward()


def go_on(framework: Any, loop: tuple[Any, Any, Any], start: int, stop: int = STEPS) -> dict[str, Any]:
    """Make some updates; the weights after them."""
    model, optimizer, scheduler = loop
    for step in range(start, stop):
        backward(framework, model, step)
        optimizer.step()
        scheduler.step()
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def begun(framework: Any, spec: ll.Spec | None = None, dtype: str = "float64") -> tuple[Any, Any, Any]:
    model = net(framework, dtype)
    return model, *ll.compile(spec or spec_of(), model, total_steps=STEPS)


def train_graph(flow: Any, spec: ll.Spec, dtype: str) -> dict[str, Any]:
    """The weights after all updates in a graph."""
    model = net(flow, dtype)

    class Train(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.scheduler = ll.attach(spec, self, model, total_steps=STEPS)

        def build(self, x: Any, y: Any) -> Any:
            loss = ((self.model(x) - y) ** 2).mean()
            loss.backward()
            return loss

    graph = Train()
    for step in range(STEPS):
        graph(*(flow.tensor(array, dtype=getattr(flow, dtype)) for array in batch(step)))
    flow._oneflow_internal.eager.Sync()
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
