"""The rates of a recipe's later updates, as far as ranks compare them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch

from layered_lr.arrays import Float64
from layered_lr.printed import name_of
from layered_lr_torch.audit.lengths import UNKNOWN_LENGTH
from layered_lr_torch.audit.recipe import AuditedRecipe, count_made
from layered_lr_torch.plan_scheduler import PlanScheduler

SAMPLES: Final = 9
"""Updates whose rates go to the other ranks; of the others there is a digest."""

RatesOf = Callable[[torch.optim.Optimizer, Any], "Float64 | None"]
"""The rates of an optimizer under a scheduler from now on, shape (steps, groups); None where they are not known."""


def describe_curves(recipe: AuditedRecipe, rates_of: RatesOf) -> Iterator[dict[str, Any]]:
    """Yield what the rates of each optimizer will be, as plain values.

    Args:
        recipe: Of this rank.
        rates_of: Follows a scheduler that is no plan's.
    """
    for optimizer in recipe.optimizers:
        labels = [group.label for group in recipe.groups if group.optimizer is optimizer]
        for scheduler in recipe.schedulers:
            if isinstance(scheduler, PlanScheduler):
                if scheduler.optimizer is optimizer:
                    length = scheduler.plan.total_steps or UNKNOWN_LENGTH
                    rows = np.linspace(0, length - 1, min(length, SAMPLES)).astype(int).tolist()
                    rates = np.concatenate([scheduler.plan.table(row, row + 1) for row in rows])
                    names = [group.name for group in scheduler.plan.groups]
                    yield _describe(scheduler, names, rows, rates, rates)
            elif (found := rates_of(optimizer, scheduler)) is not None and len(found):
                rows = np.linspace(0, len(found) - 1, min(len(found), SAMPLES)).astype(int)
                yield _describe(scheduler, labels, (rows + count_made(scheduler)).tolist(), found[rows], found)


def _describe(scheduler: Any, labels: list[str], rows: list[int], sampled: Float64, rates: Float64) -> dict[str, Any]:
    return {
        "kind": name_of(scheduler),
        "labels": labels,
        "steps": rows,
        "rates": sampled.tolist(),
        "digest": hashlib.sha256(np.ascontiguousarray(rates).tobytes()).hexdigest(),
    }
