"""How OneFlow applies a plan's rates; imports no OneFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from layered_lr.errors import SpecError, Unsupported
from layered_lr.lowering import Lowering
from layered_lr.plans import Plan, PlanGroup
from layered_lr.schedules import Constant, Float64, Schedule, StepLR

LONGEST_TABLE = 100_000  # values; measured: 1.2 s of compile time and 35 % of a 0.4 ms step at this length
INT64_MAX = 2**63 - 1

S = TypeVar("S", bound=Schedule)


def eager(plan: Plan) -> Iterator[Lowering]:
    """OneFlow's eager optimizers ignore ``lr_scale``: each group's rate is set, scaled, before every update."""
    for _ in plan.groups:
        yield Lowering("host", "folded")


def graph(plan: Plan) -> Iterator[Lowering]:
    """OneFlow's Graph multiplies ``lr_scale`` itself; its own schedulers serve where they are exact, else a table.

    Raises:
        Unsupported: A table that would be longer than ``LONGEST_TABLE``, or a rate before ``lr_scale`` that
            float32 cannot hold.
    """
    for group in plan.groups:
        _check_static(group)
        _check_range(plan, group)
        schedule = native(plan, group)
        if isinstance(schedule, Constant):
            yield Lowering("constant", "native")
        elif schedule is not None:
            yield Lowering("native", "native", type(schedule).__name__)
        elif plan.total_steps is None:
            yield Lowering("table", "native", "(needs total_steps)")
        else:
            yield Lowering("table", "native", f"of {len(rate_table(plan, group)[1])} rates")


def _check_static(group: PlanGroup) -> None:
    """Refuse what a compiled optimizer cannot change between two steps."""
    kind = type(group.schedule).__name__
    if group.is_reactive:
        raise Unsupported(
            f"backend 'oneflow-graph' compiles rates in: {kind} of group {group.name!r} cannot decide them. "
            "Use 'oneflow-eager'."
        )
    if group.schedule.drives_momentum:
        raise Unsupported(
            f"backend 'oneflow-graph' cannot cycle the momentum of group {group.name!r} (OneFlow compiles it in as a "
            f"constant). Set cycle_momentum=False in its {kind}, or use 'oneflow-eager'."
        )


def _check_range(plan: Plan, group: PlanGroup) -> None:
    """Refuse what would be lost where the Graph rounds to float32, before ``lr_scale``."""
    limits = np.finfo(np.float32)
    steps = np.arange(plan.total_steps or 1)
    rates = np.append(plan.unscaled(group, steps), group.lr)
    lost = (rates > limits.max) | ((rates < limits.tiny) & (rates * group.lr_scale >= limits.tiny))
    if lost.any() or not (group.lr_scale == 0 or limits.tiny <= group.lr_scale <= limits.max):
        raise Unsupported(
            f"backend 'oneflow-graph' rounds the rate to float32 before it multiplies lr_scale={group.lr_scale:g}: "
            f"group {group.name!r} has a rate of {rates[lost][0] if lost.any() else group.lr:g} there, which float32 "
            "cannot hold. Choose lr and lr_scale nearer to 1, or use 'torch-eager'."
        )


def native(plan: Plan, group: PlanGroup) -> Schedule | None:
    """The group's schedule, counted in steps, where OneFlow's Graph computes exactly that; else None."""
    in_steps = _IN_STEPS.get(type(group.schedule))
    if in_steps is None:
        return None
    return in_steps(group.schedule, (plan.steps_per_epoch or 1) if group.schedule.unit == "epoch" else 1)


def _constant(schedule: Schedule, steps: int) -> Schedule:
    return Constant()


def _step_lr(schedule: StepLR, steps: int) -> Schedule | None:
    # OneFlow refuses gamma == 0 and holds step_size in an int64.
    if schedule.gamma == 0 or schedule.step_size * steps > INT64_MAX:
        return None
    return replace(schedule, step_size=schedule.step_size * steps, unit="step")


_IN_STEPS: Mapping[type[Schedule], Callable[..., Schedule | None]] = {Constant: _constant, StepLR: _step_lr}


def rate_table(plan: Plan, group: PlanGroup) -> tuple[list[int], list[float]]:
    """The group's rates over the whole run, before ``lr_scale``, as runs of equal values.

    Returns:
        The last step of every run but the last one, and the rate of every run.

    Raises:
        SpecError: The plan does not know how long the run is.
        Unsupported: More than ``LONGEST_TABLE`` runs.
    """
    if plan.total_steps is None:
        raise SpecError(
            f"group {group.name!r}: {type(group.schedule).__name__} becomes a table of rates in a OneFlow Graph: "
            "give total_steps=..., the number of updates of the whole run."
        )
    rates: Float64 = plan.unscaled(group, np.arange(max(plan.total_steps, 1)))
    last = np.flatnonzero(np.diff(rates))
    if len(last) >= LONGEST_TABLE:
        raise Unsupported(
            f"backend 'oneflow-graph' holds at most {LONGEST_TABLE} different rates per group; group {group.name!r} "
            f"has {len(last) + 1}. Use a schedule with unit='epoch', or 'oneflow-eager'."
        )
    return last.tolist(), rates[np.append(last, len(rates) - 1)].tolist()
