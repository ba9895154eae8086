"""Schedules drawn at random, sensible and absurd; the same for the same generator."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.schedules import SCHEDULES

LENGTHS = {"total_steps": 12, "steps_per_epoch": 3}
# Only one of its kind is right, and drawing another is refused at once.
_WORDS = {
    "mode": ["triangular", "triangular2", "exp_range", "min", "max", "linear", "exponential", "constant", "cos"],
    "metric": ["loss", "accuracy"],
    "threshold_mode": ["rel", "abs"],
    "scale_mode": ["cycle", "iterations"],
    "anneal_strategy": ["cos", "linear", ""],
    "warmup_type": ["linear", "cosine", "1-sqrt"],
    "decay_type": ["linear", "cosine", "1-sqrt", "sqrt"],
}
_FLAGS = {"cycle_momentum", "three_phase", "warmup_prefix", "factor_of_lr"}
_FUNCTIONS = [
    lambda step: 0.9**step,
    lambda step: 1 / step,
    lambda step: "a",
    lambda step: step - 5,
    lambda step: math.nan,
    math.sqrt,
    math.exp,
]


def pick(rng: np.random.Generator, options: Any) -> Any:
    """One of the options, as it is."""
    return options[int(rng.integers(len(options)))]


def number(rng: np.random.Generator, absurd: bool) -> Any:
    """A number for an argument."""
    if not absurd:
        return pick(rng, [int(rng.integers(1, 9)), float(rng.uniform()), float(rng.uniform()), 1, 2, 0.0])
    return pick(
        rng,
        [0, -1, True, None, "3", math.nan, math.inf, -math.inf, 1e308, 1e-320, 1e-42, 2**53, 2**53 + 1, 10**400, 2.5]
        + [int(rng.integers(-3, 60)), float(rng.uniform(0, 2)), float(10 ** rng.uniform(-40, 40))] * 3,
    )


def rate(rng: np.random.Generator) -> Any:
    """An ``lr`` or ``lr_scale``: mostly sensible, sometimes 0, tiny, huge or none at all."""
    usual = [float(10 ** rng.uniform(-6, 2))] * 8
    return pick(rng, [*usual, 0.0, 1.0, 1e-42, 1e-30, 1e30, 1e40, 1e300, -1.0, math.nan, "x"])


def schedule(rng: np.random.Generator, depth: int = 2) -> ll.Schedule:
    """Any schedule with any arguments.

    Raises:
        SpecError: Arguments that cannot be.
    """
    kind = pick(rng, list(SCHEDULES.values()))
    absurd = bool(rng.integers(8) == 0)
    counted: dict[str, Any] = {"unit": "epoch"} if rng.integers(3) == 0 else {}
    if counted and rng.integers(2):
        counted["every_step"] = True
    if depth and kind in (ll.SequentialLR, ll.ChainedScheduler, ll.Warmup):
        children = [schedule(rng, depth - 1) for _ in range(rng.integers(1, 4))]
        if kind is ll.Warmup:
            return ll.Warmup(number(rng, absurd), children[0], **counted)
        milestones = [int(x) for x in rng.integers(0, 10, len(children) - 1)]
        if kind is ll.SequentialLR:
            return ll.SequentialLR(children, milestones if absurd else sorted(milestones), **counted)
        return ll.ChainedScheduler(children, **counted)
    if kind is ll.MultiStepLR:
        milestones = [number(rng, absurd) if absurd else int(rng.integers(0, 9)) for _ in range(rng.integers(4))]
        return ll.MultiStepLR(milestones if absurd else sorted(milestones), number(rng, absurd), **counted)
    if kind is ll.Table:
        values = [number(rng, absurd) for _ in range(rng.integers(16))]
        return ll.Table(values, factor=bool(rng.integers(2)), **counted)
    if kind in (ll.LambdaLR, ll.MultiplicativeLR, ll.Function):
        return kind(pick(rng, _FUNCTIONS), **counted)
    arguments: dict[str, Any] = {}
    for entry in fields(kind):
        if entry.name in ("unit", "every_step", "scale_fn", "schedulers", "then"):
            continue
        if entry.name in _WORDS:
            if rng.integers(3) == 0:
                arguments[entry.name] = pick(rng, _WORDS[entry.name])
        elif entry.name in _FLAGS:
            arguments[entry.name] = bool(rng.integers(2))
        elif rng.integers(4):
            arguments[entry.name] = _fitting(rng, str(entry.type), absurd)
    return kind(**arguments, **counted)


def _fitting(rng: np.random.Generator, type_name: str, absurd: bool) -> Any:
    """A number of the type that is asked for, unless absurd."""
    if absurd or not ("Count" in type_name or "Length" in type_name):
        return number(rng, absurd)
    return int(rng.integers(0, 9))


def group(rng: np.random.Generator, name: str) -> ll.Group:
    """A group of that name with a schedule of its own.

    Raises:
        SpecError: Arguments that cannot be.
    """
    return ll.Group(name, lr=rate(rng), lr_scale=rate(rng), schedule=schedule(rng))
