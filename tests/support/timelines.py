"""What tests of phases and states train: a small model with all that can go wrong in it, and how they compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.session import NO_EXTRAS, Extras, Session
from layered_lr.state import TrainingState

CLASSES, BATCH = 3, 8
BODY = ("body.weight", "body.bias", "norm.weight", "norm.bias")
HEAD = ("head.weight", "head.bias")


def net(framework: Any, dropout: float = 0.0) -> Any:
    """Groups ``body``, ``norm`` and ``head``, and perhaps the framework's own dropout between."""
    nn = framework.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)
            self.drop = nn.Dropout(dropout)

        def forward(self, x: Any) -> Any:
            return self.head(self.drop(framework.tanh(self.norm(self.body(x.flatten(1))))))

    return Net()


def start(model: Any, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A state for the model; its batch normalisation as new."""
    rng = np.random.default_rng(seed)
    drawn = {"body.weight": (8, 12), "body.bias": (8,), "head.weight": (CLASSES, 8), "head.bias": (CLASSES,)}
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in drawn.items()}


def batch(step: int, size: int = BATCH) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng([7, step])
    return rng.standard_normal((size, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, size)


def opened(
    backend: Backend,
    framework: Any,
    spec: ll.Spec,
    total: int,
    *,
    dropout: float = 0.0,
    dtype: Any = "float64",
    seed: int = 0,
    extras: Extras = NO_EXTRAS,
) -> Session:
    """A session, or a timeline of them, on the same start for the same seed."""
    model = backend.build(lambda: net(framework, dropout), CLASSES, 0.0, seed, dtype)
    backend.load(model, start(model, seed))
    return open_session(backend, ll.resolve(spec, model, total, 4), model, CLASSES, extras)


def train(session: Session, steps: int, parts: int = 1) -> list[float]:
    """Make updates with the batches of their steps, showing reactive schedules each loss; returns the losses."""
    losses = []
    for _ in range(steps):
        loss = session.losses([session.train_step(*batch(session.step), parts)])[0]
        session.observe({"loss": loss}, "step")
        losses.append(float(loss))
    return losses


def same(one: TrainingState, other: TrainingState) -> None:
    """Bitwise, random generators included."""
    assert (one.step, one.optimizer, one.reactions) == (other.step, other.optimizer, other.reactions)
    assert one.slots.keys() == other.slots.keys()
    pairs = [(one.slots[name], other.slots[name]) for name in one.slots]
    for mine, theirs in [(one.weights, other.weights), (one.ema, other.ema), (one.random, other.random), *pairs]:
        same_arrays(mine, theirs)


def same_arrays(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def by_loop(case: ll.Optimizer) -> ll.Optimizer:
    """The optimizer by torch's plainest implementation, to hold it against torch bitwise."""
    return replace(case, foreach=False)
