"""How long a scheduler's own schedule is, and whether that fits the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from torch.optim import lr_scheduler

from layered_lr.arrays import Float64
from layered_lr_torch.plan_scheduler import PlanScheduler

UNKNOWN_LENGTH: Final = 200
"""Steps to follow a schedule without an end."""
_EARLY = 0.8  # of a schedule's length: a run that ends before has left out a part that matters
_LATE = 1.1
_MOST_CYCLES = 40
_AT_ONCE = 0.05  # of the run, in which the last milestone has been passed
_AT_ONCE_LINEAR = 2  # lengths of a fall in the run
_STILL = 1.05  # largest rate by smallest rate of a schedule that does nothing
_DEAD = 1e-6  # of the largest rate
_MOST_DEAD = 0.2  # of the run

_PER_UPDATE = "It seems to count updates, and the loop to step it once per epoch."
_PER_EPOCH = "It seems to count epochs, and the loop to step it once per update."


class Misfit(NamedTuple):
    """A schedule that does not fit its run.

    Args:
        what: What is there.
        effect: What it does to the run.
    """

    what: str
    effect: str


def own_length(scheduler: Any) -> int | None:
    """How many steps a scheduler's schedule has; None where it has no end, or nobody can tell."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        last = own_length(scheduler._schedulers[-1])
        return (scheduler._milestones or [0])[-1] + (last or 0)
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):
        return max((own_length(each) or 0 for each in scheduler._schedulers), default=0) or None
    for name in ("total_steps", "T_max", "total_iters", "total_size", "T_0", "t_initial", "step_size"):
        length = getattr(scheduler, name, None)
        if isinstance(length, int | float) and not isinstance(length, bool) and length >= 1:
            return int(length)
    if isinstance(scheduler, lr_scheduler.MultiStepLR):
        return max(scheduler.milestones, default=0) or None
    return _written_length(scheduler, "num_training_steps")


def find_misfits(scheduler: Any, steps: int | None) -> Iterator[Misfit]:
    """Yield what does not fit between a scheduler and a run of so many steps; without steps, between its parts."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        yield from _find_misfits_of_parts(scheduler, steps)
    elif isinstance(scheduler, lr_scheduler.ChainedScheduler):
        for each in scheduler._schedulers:
            yield from find_misfits(each, steps)
    elif steps is not None:
        yield from _find_misfits_of_one(scheduler, steps)


def _find_misfits_of_parts(scheduler: lr_scheduler.SequentialLR, steps: int | None) -> Iterator[Misfit]:
    starts = [0, *scheduler._milestones]
    stops = [*scheduler._milestones, steps]
    for number, (part, start, stop) in enumerate(zip(scheduler._schedulers, starts, stops, strict=True)):
        kind = type(part).__name__
        if steps is not None and number and start >= steps:
            yield Misfit(
                f"{kind} begins at step {start}, and the run has {steps}.",
                f"It never begins: the run ends in {type(scheduler._schedulers[number - 1]).__name__}. {_PER_UPDATE}",
            )
            return
        if stop is None or isinstance(part, lr_scheduler.ConstantLR):
            continue
        is_last = number == len(starts) - 1
        if is_last or isinstance(part, lr_scheduler.LinearLR):
            yield from find_misfits(part, (stop if steps is None else min(stop, steps)) - start)


def _find_misfits_of_one(scheduler: Any, steps: int) -> Iterator[Misfit]:
    length, kind = own_length(scheduler), type(scheduler).__name__
    warmup = _written_length(scheduler, "num_warmup_steps") or getattr(scheduler, "warmup_t", 0)
    if warmup and warmup >= steps:
        yield Misfit(f"The warm-up has {warmup} steps, and the run {steps}.", f"The run ends in it. {_PER_UPDATE}")
        return
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        if scheduler.patience + 1 >= steps:
            yield Misfit(f"{kind} waits for {scheduler.patience} steps, and the run has {steps}.", "It never acts.")
        return
    if isinstance(scheduler, lr_scheduler.StepLR | lr_scheduler.MultiStepLR):
        first = scheduler.step_size if isinstance(scheduler, lr_scheduler.StepLR) else min(scheduler.milestones or [0])
        if first >= steps:
            yield Misfit(
                f"{kind} acts first at step {first}, and the run has {steps}.", f"It never acts. {_PER_UPDATE}"
            )
        elif isinstance(scheduler, lr_scheduler.MultiStepLR) and (length or 0) < _AT_ONCE * steps:
            yield Misfit(
                f"{kind} acts last at step {length}, and the run has {steps}.",
                f"Nearly the whole run has the last rates. {_PER_EPOCH}",
            )
        return
    if length is None:
        return
    if isinstance(scheduler, lr_scheduler.ConstantLR):
        if steps <= length and scheduler.factor != 1.0:
            yield Misfit(f"{kind} lasts {length} steps, and the run {steps}.", f"Its factor never ends. {_PER_UPDATE}")
    elif steps < _EARLY * length:
        yield Misfit(
            f"{kind} lasts {length} steps, and the run {steps}.",
            f"The run ends after {steps / length:.0%} of the schedule. {_PER_UPDATE}",
        )
    elif isinstance(scheduler, lr_scheduler.OneCycleLR | PlanScheduler) and steps > length:
        effect = "It raises an error at the step after." if kind == "OneCycleLR" else "The last rates stay."
        yield Misfit(f"{kind} lasts {length} steps, and the run {steps}.", f"{effect} {_PER_EPOCH}")
    elif isinstance(scheduler, lr_scheduler.CosineAnnealingLR) and steps > _LATE * length + 1:
        yield Misfit(
            f"{kind} reaches its lowest rate at step {length} (T_max), and the run has {steps}.",
            f"Behind it the rate rises again, {-(-steps // length) // 2} times in the run. {_PER_EPOCH}",
        )
    elif _restarts_alike(scheduler) and steps > _MOST_CYCLES * length:
        yield Misfit(
            f"{kind} begins again every {length} steps, and the run has {steps}.",
            f"It begins again {(steps - 1) // length} times. {_PER_EPOCH}",
        )
    elif (
        isinstance(scheduler, lr_scheduler.LinearLR)
        and scheduler.end_factor < scheduler.start_factor
        and _AT_ONCE_LINEAR * length < steps
    ):
        yield Misfit(
            f"{kind} reaches its lowest rate at step {length}, and the run has {steps}.",
            f"It stays there for {1 - length / steps:.0%} of the run. {_PER_EPOCH}",
        )


def find_misfits_of_rates(scheduler: Any, rates: Float64) -> Iterator[Misfit]:
    """Yield what rates over the whole run say: they vanish long before its end, or hardly move."""
    highest, kind = rates.max(axis=0), type(scheduler).__name__
    if not len(rates) or not highest.any():
        return
    alive = np.flatnonzero((rates > _DEAD * highest).any(axis=1))
    last = int(alive[-1]) + 1
    if last < (1 - _MOST_DEAD) * (len(rates) - 1):
        yield Misfit(
            f"{kind} has rates below a millionth of the highest from step {last} on, and the run has {len(rates) - 1}.",
            f"Nothing trains in the last {1 - last / len(rates):.0%} of the run. {_PER_EPOCH}",
        )
    elif isinstance(scheduler, lr_scheduler.ExponentialLR) and (highest <= _STILL * rates.min(axis=0)).all():
        yield Misfit(
            f"{kind} changes the rates by less than {_STILL - 1:.0%} over the {len(rates) - 1} steps of the run.",
            f"It does nothing. {_PER_UPDATE}",
        )


def _restarts_alike(scheduler: Any) -> bool:
    """Whether a scheduler goes through one cycle of the same length again and again."""
    if isinstance(scheduler, lr_scheduler.CosineAnnealingWarmRestarts):
        return bool(scheduler.T_mult == 1)
    return isinstance(scheduler, lr_scheduler.CyclicLR)


def _written_length(scheduler: Any, name: str) -> int | None:
    """A length inside the functions of a ``LambdaLR``: an argument of a ``partial``, or a variable of a closure."""
    for function in getattr(scheduler, "lr_lambdas", ()):
        value = getattr(function, "keywords", {}).get(name)
        code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
        if value is None and code is not None and cells and name in code.co_freevars:
            value = cells[code.co_freevars.index(name)].cell_contents
        if isinstance(value, int) and value >= 1:
            return value
    return None
