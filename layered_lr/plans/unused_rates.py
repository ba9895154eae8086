"""Finds groups whose own ``lr`` has no effect, because their schedule sets the rate to its own numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layered_lr.errors import LayeredLRError
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan

_SAMPLES = 16
_LATEST = 10_000  # a schedule may have to compute all rates before the one that is asked for


def describe_unused_rates(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each group that was given an ``lr`` of its own which no step of the run uses.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("head", lr=0.5)], ll.OneCycleLR(0.2, cycle_momentum=False))
        >>> plan = ll.resolve(spec, [("head.weight", (2, 2))], total_steps=10)
        >>> print(next(describe_unused_rates(plan))[:54])
        group 'head': lr=0.5 is not used, because OneCycleLR s
    """
    said: set[str] = set()
    for part in plan.phase_plans:
        given = {group.label: group.lr for group in part.spec.groups if group.lr is not None}
        for group in part.groups:
            if group.name in given and group.name not in said and ignores_lr(part, group):
                said.add(group.name)
                kind = type(group.schedule).__name__
                yield (
                    f"group {group.name!r}: lr={group.lr:g} is not used, because {kind} sets the rate itself; give the "
                    "group lr_scale, or another schedule"
                )


def ignores_lr(plan: Plan, group: PlanGroup) -> bool:
    """Whether a group's schedule sets the rate to its own numbers, whatever the group's ``lr`` is."""
    stop = min(plan.total_steps or plan.start + _SAMPLES, plan.start + _LATEST) - 1
    steps = np.unique(np.linspace(plan.start, max(stop, plan.start), _SAMPLES).astype(np.int64))
    try:
        rates = group.schedule.rates(plan.clock(group, steps), (group.lr, 2.0 * group.lr + 1.0))
    except LayeredLRError:  # the plan says so where it is asked for these steps
        return False
    return bool((rates[:, 0] == rates[:, 1]).all()) and bool((rates > 0).any())
