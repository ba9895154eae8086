"""Runs that are stopped and go on, on given gradients of a small model with batch normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.session import Extras, Session
from layered_lr.state import TrainingState
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays
from tests.support.optimizer_cases import fitting

X, Y, _, _ = arrays(96)
STEPS = 11
BATCH = 8


def normed(framework: Any, dropout: float = 0.0) -> Any:
    """What builds a network of two layers with batch normalisation: ``1``, ``2`` and ``4`` have parameters."""
    nn = framework.nn
    # Without a bias before the normalisation: its gradient is rounding alone, of which Adam makes whole steps.
    return lambda: nn.Sequential(
        nn.Flatten(1),
        nn.Linear(FEATURES, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.Tanh(),
        nn.Linear(HIDDEN, CLASSES),
        *([nn.Dropout(dropout)] if dropout else []),
    )


def start(dtype: str = "float32") -> dict[str, NDArray[Any]]:
    """Weights to begin with."""
    rng = np.random.default_rng(4)
    shapes = {"1.weight": (HIDDEN, FEATURES), "4.weight": (CLASSES, HIDDEN), "4.bias": (CLASSES,)}
    drawn = {name: 0.4 * rng.standard_normal(shape) for name, shape in shapes.items()}
    norm = {"2.weight": np.ones(HIDDEN), "2.bias": np.zeros(HIDDEN)}
    return {name: values.astype(dtype) for name, values in (drawn | norm).items()}


def spec_of(optimizer: ll.Optimizer, **options: Any) -> ll.Spec:
    """Two groups at other rates, one of which falls at every step."""
    groups = [ll.Group("1", lr_scale=0.5), ll.Group("4", schedule=ll.ExponentialLR(0.9))]
    usual, groups = fitting(optimizer, groups, {"1": "1.weight", "4": "4.weight"})
    return ll.Spec(usual, groups, **{"schedule": ll.StepLR(3, 0.7), **options})


def opened(
    backend: Backend, framework: Any, spec: ll.Spec, extras: Extras, dtype: Any = "float32", step: int = 0, **plan: Any
) -> Session:
    """A session on a new model."""
    model = backend.build(normed(framework), CLASSES, 0.0, 0, dtype)
    backend.load(model, start(dtype))
    resolved = ll.resolve(spec, model, total_steps=plan.pop("total_steps", STEPS), steps_per_epoch=3)
    return backend.open(replace(resolved, **plan), model, CLASSES, extras, step)


def update(session: Session, at: int) -> float:
    """One update; reactive schedules are shown the loss."""
    place = at % (len(X) // BATCH) * BATCH
    handle = session.train_step(X[place : place + BATCH], Y[place : place + BATCH], session.extras.accumulate_steps)
    loss = float(session.losses([handle])[0])
    session.observe({"loss": loss, "accuracy": 0.0}, "step")
    return loss


def trained(session: Session, start: int, stop: int) -> list[float]:
    """The losses of some updates."""
    return [update(session, at) for at in range(start, stop)]


def apart(one: TrainingState, other: TrainingState) -> float:
    """The largest difference of two states, by the larger of 1 and what it is; infinite where names differ."""
    if one.step != other.step or one.reactions != other.reactions:
        return float("inf")
    mine, theirs = dict(one.arrays()), dict(other.arrays())
    if mine.keys() != theirs.keys() or any(mine[name].dtype != theirs[name].dtype for name in mine):
        return float("inf")
    return max(
        float(np.max(np.abs(array.astype(np.float64) - theirs[name]), initial=0.0)) for name, array in mine.items()
    )
