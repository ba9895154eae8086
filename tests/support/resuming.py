"""A short run with much to remember."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.registry import TABLE
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays

EPOCHS = 3
SPEC = ll.Spec(
    ll.AdamW(0.01, weight_decay=0.1),
    [
        ll.Group("head", lr_scale=2.0, schedule=ll.ReduceLROnPlateau(patience=0, factor=0.7)),
        ll.Group("norm", schedule=ll.ReduceLROnPlateau(patience=1, factor=0.9, unit="step")),
    ],
    ll.CosineDecay(warmup_steps=3),
    no_weight_decay="1d",
    clip_grad_norm=1.0,
)


def _net(framework: Any, dropout: bool) -> Any:
    nn = framework.nn
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten(1))
    model.add_module("body", nn.Linear(FEATURES, HIDDEN))
    model.add_module("norm", nn.BatchNorm1d(HIDDEN))
    if dropout:
        model.add_module("drop", nn.Dropout(0.3))
    model.add_module("head", nn.Linear(HIDDEN, CLASSES))
    return model


def torch_net() -> Any:
    import torch

    return _net(torch, False)


def torch_net_with_dropout() -> Any:
    import torch

    return _net(torch, True)


def oneflow_net() -> Any:
    import oneflow

    return _net(oneflow, False)


MODELS = {"torch": torch_net, "oneflow": oneflow_net}


def options(backend: str, **other: Any) -> dict[str, Any]:
    """Arguments of ``run`` beside the spec."""
    return {
        "backend": backend,
        "model": MODELS[TABLE[backend].framework],
        "data": arrays(),
        "epochs": EPOCHS,
        "batch_size": 8,
        "accumulate_steps": 2,
        "ema_decay": 0.9,
        "initial_weights": start(),
        "device": "cpu",
        "progress": False,
        **other,
    }


@cache
def start() -> Any:
    """The same first weights for either framework."""
    rng = np.random.default_rng(5)
    shapes = {
        "body.weight": (HIDDEN, FEATURES),
        "body.bias": (HIDDEN,),
        "norm.weight": (HIDDEN,),
        "norm.bias": (HIDDEN,),
        "head.weight": (CLASSES, HIDDEN),
        "head.bias": (CLASSES,),
    }
    drawn = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    still = {"norm.running_mean": np.zeros(HIDDEN, np.float32), "norm.running_var": np.ones(HIDDEN, np.float32)}
    return {**drawn, **still, "norm.num_batches_tracked": np.array(0)}


def assert_same(one: ll.Result, other: ll.Result) -> None:
    """Bitwise, in everything that was measured or learned."""
    for name in ("losses", "accuracies", "ema_accuracies", "grad_norms"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("weights", "ema_weights", "rates", "group_grad_norms"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert set(mine) == set(theirs)
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key], err_msg=f"{name} {key}")
