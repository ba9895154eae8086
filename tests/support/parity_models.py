"""Models that another process can import: one for each framework, and some that go wrong."""

from __future__ import annotations

import os
from typing import Any

from tests.support.models import mlp


def in_torch() -> Any:
    import torch

    return mlp(torch)()


def in_oneflow() -> Any:
    import oneflow

    return mlp(oneflow)()


def of_another_shape() -> Any:
    import oneflow

    return mlp(oneflow, bias=False)()


def with_another_activation() -> Any:
    import oneflow

    model = mlp(oneflow)()
    model[2] = oneflow.nn.ReLU()
    return model


def that_kills_its_process() -> Any:
    print("the last thing it says", flush=True)
    os.abort()
