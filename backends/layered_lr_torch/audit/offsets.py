"""A scheduler that is at another update than its optimizer, and rates that are not the scheduler's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from layered_lr.findings import Finding
from layered_lr_torch.audit.recipe import AuditedRecipe, ListedGroup
from layered_lr_torch.audit.simulation import RatesOnly, copy_scheduler, without_traces
from layered_lr_torch.plan_scheduler import PlanScheduler

_CLOSE = 1e-3  # of a rate


def find_offset(
    recipe: AuditedRecipe, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], scheduler: Any
) -> Iterator[Finding]:
    """Yield what says that a scheduler and its optimizer are at different updates."""
    made, place = _updates_made(optimizer), int(getattr(scheduler, "last_epoch", 0) or 0)
    labels = tuple(group.label for group in groups)
    mend = "load the states of both, optimizer and scheduler, after both are made, and from the same checkpoint."
    if (made or _has_momentum(optimizer)) and place == 0 and not getattr(optimizer, "_opt_called", False):
        yield Finding(
            "last-epoch-off",
            f"The optimizer has made {made or 'some'} updates, and the scheduler is at step 0.",
            labels,
            (),
            "The schedule begins again, with its warm-up and its highest rates.",
            mend,
        )
    elif place > 0 and made == 0 and not optimizer.state and _keeps_state(optimizer):
        yield Finding(
            "last-epoch-off",
            f"The scheduler is at step {place}, and the optimizer has no state.",
            labels,
            (),
            "Momentum and mean squares begin again at a rate for the middle of the run.",
            mend,
        )
    elif made and place > made + max(2, made // 10):
        yield Finding(
            "last-epoch-off",
            f"The optimizer has made {made} updates, and the scheduler is at step {place}.",
            labels,
            (),
            "The schedule is ahead of the training: it ends too early.",
            "step the scheduler once for each update of the optimizer, or less often. " + mend[0].upper() + mend[1:],
        )
    elif (wrong := _find_wrong_rates(recipe, optimizer, groups, scheduler)) is not None:
        group, right = wrong
        yield Finding(
            "last-epoch-off",
            f"The rate is {group.rate:g}, and {type(scheduler).__name__} has {right:g} at step {place}.",
            (group.label,),
            (),
            "The rate was set by something else, or the scheduler was made in the middle of a run: many schedulers "
            "compute each rate from the one before, and so every later rate is wrong too.",
            mend,
        )


def _find_wrong_rates(
    recipe: AuditedRecipe, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], scheduler: Any
) -> tuple[ListedGroup, float] | None:
    """A group whose present rate is not the scheduler's, with the right one."""
    expected = list(getattr(scheduler, "_last_lr", ()))
    if (hasattr(scheduler, "_get_closed_form_lr") or hasattr(scheduler, "lr_lambdas")) and not isinstance(
        scheduler, PlanScheduler | lr_scheduler.MultiplicativeLR
    ):
        try:
            with without_traces():
                own = copy_scheduler(recipe, optimizer, scheduler, RatesOnly(optimizer))
                expected = list(own._get_closed_form_lr() if hasattr(own, "_get_closed_form_lr") else own.get_lr())
        except Exception:  # simulate() says so
            return None
    if len(expected) != len(groups):
        return None
    for group, rate in zip(groups, expected, strict=True):
        if abs(group.rate - float(rate)) > _CLOSE * max(abs(float(rate)), group.rate) + 1e-9 * group.base_rate:
            return group, float(rate)
    return None


def _updates_made(optimizer: torch.optim.Optimizer) -> int:
    counts = [float(state["step"]) for state in optimizer.state.values() if isinstance(state, dict) and "step" in state]
    return int(max(counts, default=0.0))


def _has_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Whether updates have left a running sum; SGD does not count them."""
    return any(
        state.get("momentum_buffer") is not None for state in optimizer.state.values() if isinstance(state, dict)
    )


def _keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer has a state after an update; SGD without momentum has none."""
    is_plain = isinstance(optimizer, torch.optim.SGD) and not any(g["momentum"] for g in optimizer.param_groups)
    return not is_plain and any(group["params"] for group in optimizer.param_groups)
