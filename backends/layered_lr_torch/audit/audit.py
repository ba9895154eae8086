"""The function behind ``layered_lr.audit``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from layered_lr.findings import Audit, Finding
from layered_lr.printed import name_of
from layered_lr_torch.audit.companions import find_missed_by_clipping, find_missed_by_ema
from layered_lr_torch.audit.decay import find_uneven_decay
from layered_lr_torch.audit.freezing import find_moving_statistics, find_thawed
from layered_lr_torch.audit.membership import find_strays
from layered_lr_torch.audit.ranks import compare_ranks
from layered_lr_torch.audit.recipe import AuditedRecipe, read_recipe
from layered_lr_torch.audit.schedulers import ScheduleAudit
from layered_lr_torch.audit.state import find_swapped_states
from layered_lr_torch.torch_types import Module


def audit_recipe(
    optimizers: Sequence[object],
    models: Sequence[Module],
    schedulers: Sequence[object],
    steps: int | None,
    ema: Any,
    clipped: Any,
) -> Audit:
    """Look for every kind of fault.

    Args:
        optimizers: At least one.
        models: At least one module of torch.
        schedulers: Of any class, or functions.
        steps: How often the schedulers are stepped, if that is known.
        ema: A moving average of the weights, or None.
        clipped: The parameters that are clipped, or None.

    Raises:
        SpecError: Something is of another kind.
    """
    recipe = read_recipe(optimizers, models, schedulers, steps)
    schedule = ScheduleAudit(recipe)

    def find() -> Iterator[Finding]:
        yield from find_strays(recipe)
        yield from find_thawed(recipe)
        yield from find_moving_statistics(recipe)
        yield from find_uneven_decay(recipe)
        yield from schedule.find()
        yield from find_swapped_states(recipe)
        if ema is not None:
            yield from find_missed_by_ema(recipe, ema)
        if clipped is not None:
            yield from find_missed_by_clipping(recipe, clipped)

    own = tuple(find())
    compared = compare_ranks(recipe, schedule.rates)
    found = (*own, *compared.findings)
    headline = _headline(recipe) + (f", {compared.ranks} ranks" if compared.ranks > 1 else "")
    return Audit(found, (*schedule.unchecked, *compared.unchecked), headline)


def _headline(recipe: AuditedRecipe) -> str:
    kinds = ", ".join(type(optimizer).__name__ for optimizer in recipe.optimizers)
    listed = sum(id(tensor) in recipe.groups_of for tensor in recipe.tensors.values())
    parts = [kinds, *map(name_of, recipe.schedulers)]
    count = len(recipe.groups)
    return f"{', '.join(parts)}, {count} group{'s' * (count != 1)}, {listed} of {len(recipe.tensors)} parameters"
