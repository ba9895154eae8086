"""A network with convolutions, and how each framework trains it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from tests.support.models import fill, mlp, mlp_weights


def network(framework: Any) -> Any:
    return fill(mlp(framework)().double(), framework, {k: w.astype(np.float64) for k, w in mlp_weights().items()})


def network_graph(flow: Any, model: Any) -> Any:
    class Train(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            ll.attach(network_spec(), self, model)

        def build(self, x: Any, y: Any) -> Any:
            loss = ((self.model(x) - y) ** 2).mean()
            loss.backward()
            return loss

    return Train()


def network_spec() -> ll.Spec:
    return ll.Spec(ll.AdamW(0.01, weight_decay=0.1), [ll.Group("1", lr_scale=0.3)], no_weight_decay="1d")


def network_batch(step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(step)
    return rng.standard_normal((8, 3, 2, 2)), rng.standard_normal((8, 3))
