"""After a graph that could not be built, OneFlow takes its constants and gradients for those of the next one."""

from __future__ import annotations

from typing import Any

from tests.support.isolation import value_of


def train_after_failures() -> list[list[float]]:
    """The losses of a graph that was built alone, and of one after a graph that was refused."""
    import numpy as np
    import torch

    import layered_lr as ll

    def net():
        parts = torch.nn.Conv2d(3, 6, 3, stride=4), torch.nn.BatchNorm2d(6), torch.nn.ReLU()
        return torch.nn.Sequential(*parts, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 3))

    def too_many(output, labels):
        return torch.nn.functional.cross_entropy(output, labels, reduction="none")

    rng = np.random.default_rng(0)
    data = (rng.normal(size=(8, 3, 8, 8)).astype("float32"), np.arange(8) % 3) * 2

    def train(**options):
        run = ll.run(ll.Spec(ll.SGD(0.1)), "oneflow-graph", net, data=data, max_steps=3, batch_size=8, **options)
        return [float(loss) for loss in run.losses]

    expected = train()
    try:
        train(loss=too_many)
    except ll.SpecError:
        return [expected, train()]
    return [expected]


def test_a_graph_trains_after_one_that_was_refused(torch: Any, oneflow: Any) -> None:
    expected, after = value_of(train_after_failures)
    assert after == expected


def build_after_backward() -> list[list[float]]:
    """The weights after an update by a graph, alone, and after a graph of the same model that failed at its end."""

    import oneflow as flow

    import layered_lr_oneflow.runtime

    constant = layered_lr_oneflow.runtime.flow.arange(6.0).reshape(3, 2)

    class Update(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self, layer, fails) -> None:
            super().__init__()
            self.layer, self.fails = layer, fails
            self.add_optimizer(flow.optim.SGD(layer.parameters(), lr=0.5))

        def build(self, x):
            loss = (self.layer(x) @ constant).square().mean()
            loss.backward()
            if self.fails:
                raise ValueError("too late")
            return loss

    made = []
    for failures in (0, 1, 2):
        layer = flow.nn.Linear(4, 3)
        flow.nn.init.constant_(layer.weight, 0.1)
        flow.nn.init.constant_(layer.bias, 0.2)
        for _ in range(failures):
            try:
                Update(layer, True)(flow.ones(2, 4))
            except ValueError:
                assert all(tensor.grad is None for tensor in layer.parameters())
        Update(layer, False)(flow.ones(2, 4)).numpy()
        made.append(layer.weight.numpy().ravel().tolist())
    return made


def test_gradients_of_a_failed_graph_reach_no_other(oneflow: Any) -> None:
    alone, after_one, after_two = value_of(build_after_backward)
    assert alone == after_one == after_two
