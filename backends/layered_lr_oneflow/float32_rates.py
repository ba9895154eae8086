"""The rates that OneFlow's Graph applies for a plan, in its float32 arithmetic; imports no OneFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import rates_or_last
from layered_lr.schedules import Constant
from layered_lr_oneflow.kernel_arithmetic import KernelSchedule, as_float32
from layered_lr_oneflow.lowering import has_native_updates
from layered_lr_oneflow.native_schedules import find_native_schedule


class Float32Rates:
    """The rates that the Graph applies at each step, to the last bit, so that eager mode can do the same.

    Measured on OneFlow 0.9: a native schedule starts from the rate as float32, computes in float64, and its result is
    rounded to float32. A table holds rates as float32. ``lr_scale``, as float32, multiplies in float32. If updates are
    composed of ops, both modes use the plan's own float64 rates.

    Args:
        plan: The exact rates, from which these differ by at most 1.2e-7 of their size.
        rounds: False gives the exact rates always.
    """

    def __init__(self, plan: Plan, rounds: bool = True) -> None:
        self._exact = plan
        self._rounds = rounds and has_native_updates(plan)
        self._unscaled = replace(plan, groups=tuple(_unscale(plan, group) for group in plan.groups))
        self._scales = np.array([group.lr_scale for group in plan.groups], np.float64)

    def rates(self, step: int) -> list[float]:
        """Compute the rates of one step, in the order of the plan's groups."""
        return self.round_rates(step, rates_or_last(self._exact, step))

    def round_rates(self, step: int, rates: Sequence[float]) -> list[float]:
        """Round the rates of one step; rates that were decided while training stay as they are."""
        if not self._rounds:
            return list(rates)
        exact = np.array(rates)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounded = np.array(rates_or_last(self._unscaled, step)).astype(np.float32) * self._scales.astype(np.float32)
        # Not close are rates that a reactive schedule decided, or that float32 cannot hold and the Graph refuses.
        close = np.abs(rounded - exact) <= 1e-6 * exact
        found: list[float] = np.where(close, rounded.astype(np.float64), exact).tolist()
        return found

    def table(self, start: int, stop: int) -> Float64:
        """Compute the rates of updates ``start`` to ``stop - 1``, shape ``(stop - start, groups)``."""
        exact = self._exact.table(start, stop)
        if not self._rounds:
            return exact
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounded = self._unscaled.table(start, stop).astype(np.float32) * self._scales.astype(np.float32)
        return np.where(np.abs(rounded - exact) <= 1e-6 * exact, rounded.astype(np.float64), exact)


def _unscale(plan: Plan, group: PlanGroup) -> PlanGroup:
    """The group with ``lr_scale`` 1, and with its native schedule as OneFlow computes it."""
    schedule = find_native_schedule(plan, group)
    if schedule is None:
        return replace(group, lr_scale=1.0)
    with np.errstate(over="ignore"):
        lr = as_float32(group.lr)
    if not np.isfinite(lr):  # refused by the Graph
        return replace(group, lr_scale=1.0)
    compiled = schedule if isinstance(schedule, Constant) else KernelSchedule(schedule)
    return replace(group, lr_scale=1.0, schedule=compiled, optimizer=replace(group.optimizer, lr=lr))
