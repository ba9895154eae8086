"""What is wrong between schedulers and the groups whose rates they set."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from layered_lr.arrays import Float64
from layered_lr.files import one_line
from layered_lr.findings import Finding
from layered_lr.printed import name_of
from layered_lr_torch.audit.lengths import UNKNOWN_LENGTH, find_misfits, find_misfits_of_rates, own_length
from layered_lr_torch.audit.offsets import find_offset
from layered_lr_torch.audit.ratios import find_flattened, find_unread_scales, has_scales
from layered_lr_torch.audit.recipe import (
    AuditedRecipe,
    ListedGroup,
    count_made,
    is_function,
    is_torch_scheduler,
    list_parts,
)
from layered_lr_torch.audit.simulation import MOST_STEPS, simulate
from layered_lr_torch.own_optimizer import innermost
from layered_lr_torch.plan_scheduler import PlanScheduler


class ScheduleAudit:
    """Looks at every optimizer with its schedulers.

    Args:
        recipe: What was given.

    Attributes:
        unchecked: What could not be looked at, in sentences.
    """

    def __init__(self, recipe: AuditedRecipe) -> None:
        self.recipe = recipe
        self.unchecked: list[str] = []
        self._known: dict[tuple[int, int, bool], Float64 | None] = {}

    def find(self) -> Iterator[Finding]:
        """Yield all findings about schedulers."""
        yield from _find_foreign(self.recipe)
        for optimizer in self.recipe.optimizers:
            groups = [group for group in self.recipe.groups if group.optimizer is optimizer]
            schedulers = [each for each in self.recipe.schedulers if _sets(each, optimizer)]
            yield from self._find_of_one(optimizer, groups, schedulers)

    def _find_of_one(
        self, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], schedulers: Sequence[Any]
    ) -> Iterator[Finding]:
        second = list(_find_second(optimizer, groups, schedulers))
        yield from second
        late = False
        for scheduler in schedulers:
            for finding in _find_late_groups(groups, scheduler):
                late = True
                yield finding
        if len(schedulers) == 1 and not late and not second and is_torch_scheduler(schedulers[0]):
            yield from find_offset(self.recipe, optimizer, groups, schedulers[0])
        readers = 0
        for scheduler in schedulers:
            misfits = list(find_misfits(scheduler, self.recipe.steps))
            rates = None if late or isinstance(scheduler, PlanScheduler) else self.rates(optimizer, scheduler)
            if rates is not None:
                bare = self.rates(optimizer, scheduler, without_scale=True) if has_scales(groups) else rates
                reads = bare is not None and not np.array_equal(bare, rates)
                readers += reads
                yield from find_flattened(groups, scheduler, rates, reads)
                whole = self.recipe.steps is not None and len(rates) == self.recipe.steps + 1
                misfits = misfits or (list(find_misfits_of_rates(scheduler, rates)) if whole else [])
            for misfit in misfits:
                yield Finding(
                    "length-mismatch",
                    misfit.what,
                    tuple(group.label for group in groups),
                    (),
                    misfit.effect,
                    "give the schedule its length in the unit in which the loop calls scheduler.step(), and audit's "
                    "steps in the same unit.",
                )
        if not readers and has_scales(groups):
            yield from find_unread_scales(optimizer, groups)

    def rates(self, optimizer: torch.optim.Optimizer, scheduler: Any, without_scale: bool = False) -> Float64 | None:
        """The rates over the run, or over the schedule's own length; None where they cannot be known.

        Args:
            optimizer: Whose they are.
            scheduler: That sets them; of another optimizer there are none.
            without_scale: Whether every ``lr_scale`` is 1.
        """
        if not _sets(scheduler, optimizer):
            return None
        key = (id(optimizer), id(scheduler), without_scale)
        if key not in self._known:
            self._known[key] = self._follow(optimizer, scheduler, without_scale)
        return self._known[key]

    def _follow(self, optimizer: torch.optim.Optimizer, scheduler: Any, without_scale: bool) -> Float64 | None:
        wanted = self.recipe.steps or own_length(scheduler) or UNKNOWN_LENGTH
        left = max(wanted - count_made(scheduler), 0)
        kind = name_of(scheduler)
        try:
            rates, error = simulate(
                self.recipe, optimizer, scheduler, min(left, MOST_STEPS), without_scale=without_scale
            )
        except Exception as failure:  # it is the user's, and may hold what cannot be copied
            self._note(f"the rates of {kind}: a copy of it fails ({one_line(failure)}).")
            return None
        if error is not None and len(rates) <= _most_steps(scheduler):
            self._note(f"the rates of {kind} from step {len(rates)} on: {error}")
        if left > MOST_STEPS:
            self._note(f"the rates of {kind} behind step {MOST_STEPS:,}.")
        return rates

    def _note(self, reason: str) -> None:
        if reason not in self.unchecked:
            self.unchecked.append(reason)


def _sets(scheduler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scheduler sets the rates of an optimizer."""
    if is_function(scheduler):
        return True
    own = scheduler.optimizer
    return (innermost(own) if isinstance(own, torch.optim.Optimizer) else own) is optimizer


def _find_foreign(recipe: AuditedRecipe) -> Iterator[Finding]:
    for scheduler in recipe.schedulers:
        if not any(_sets(scheduler, optimizer) for optimizer in recipe.optimizers):
            yield Finding(
                "scheduler-of-another",
                f"{type(scheduler).__name__} sets the rates of another optimizer.",
                tuple(group.label for group in recipe.groups),
                (),
                "The rates of this one stay as they are: it was made again after the scheduler.",
                "make the scheduler after the optimizer, and of it.",
            )


def _find_late_groups(groups: Sequence[ListedGroup], scheduler: Any) -> Iterator[Finding]:
    for part in list_parts(scheduler):
        known = getattr(part, "base_lrs", getattr(part, "base_values", None))
        if known is None and isinstance(part, lr_scheduler.ReduceLROnPlateau):
            known = part.min_lrs
        if known is None or isinstance(part, PlanScheduler) or len(known) >= len(groups):
            continue
        yield Finding(
            "behind-scheduler",
            f"{type(part).__name__} knows {len(known)} of {len(groups)} groups.",
            tuple(group.label for group in groups[len(known) :]),
            (),
            "They keep their rate for the whole run, or the scheduler fails at its next step.",
            "add the groups before the scheduler is made, or make a new scheduler after add_param_group.",
        )
        return


def _find_second(
    optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], schedulers: Sequence[Any]
) -> Iterator[Finding]:
    around = _list_outermost(optimizer, schedulers)
    if len(around) > 1 and len(schedulers) < len(around):
        gc.collect()  # what nobody holds any more may wait in a cycle
        around = _list_outermost(optimizer, schedulers)
    if len(around) > 1:
        kinds = " and ".join(map(name_of, around))
        yield Finding(
            "two-schedulers",
            f"{kinds} set the rates of one optimizer.",
            tuple(group.label for group in groups),
            (),
            "Each takes the rates that the other has left, or writes over them: the curve is that of neither.",
            "join them in SequentialLR (one after the other) or ChainedScheduler (multiplied), or delete one of them.",
        )


def _list_outermost(optimizer: torch.optim.Optimizer, schedulers: Sequence[Any]) -> list[Any]:
    """The schedulers that were given or are alive and set the rates, without those inside of others.

    ``SWALR`` is left out: loops step it in place of another scheduler.
    """
    known = {id(each): each for each in [*schedulers, *_alive_schedulers(optimizer)]}
    inside = {id(part) for each in known.values() for part in list_parts(each)[1:]}
    return [each for key, each in known.items() if key not in inside and not isinstance(each, SWALR)]


def _alive_schedulers(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Schedulers of torch in this process that belong to an optimizer."""
    found: dict[int, Any] = {}
    for holder in gc.get_referrers(optimizer):
        if is_torch_scheduler(holder):  # Python 3.11 and later keep attributes in the object itself
            found[id(holder)] = holder
        elif isinstance(holder, dict) and holder.get("optimizer") is optimizer:
            for owner in gc.get_referrers(holder):
                if is_torch_scheduler(owner) and owner.__dict__ is holder:
                    found[id(owner)] = owner
    return list(found.values())


def _most_steps(scheduler: Any) -> float:
    return own_length(scheduler) or np.inf
