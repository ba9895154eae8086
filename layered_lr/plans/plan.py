"""The plan: exact groups and every rate of the run, before anything trains and without any framework."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter
from layered_lr.plans.group import PlanGroup
from layered_lr.schedules import Schedule
from layered_lr.spec.phases import Phase
from layered_lr.spec.spec import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layered_lr.plans.diff import PlanDiff
    from layered_lr.reports.curves import Scale

_BLOCK_STEPS = 65_536  # a table is filled in blocks, which bounds what is needed beside it
_AHEAD_STEPS = 1024  # one step's rates cost a few microseconds when they are computed this many at once


class PlanPhase(NamedTuple):
    """One phase of a plan, in which the optimizer and what trains stay the same.

    Args:
        start: Its first update.
        stop: The update after its last one; None where the run's length is unknown.
        settings: What the spec says of it.
        plan: The plan as it is in this phase, of the same groups, without phases of its own.
    """

    start: int
    stop: int | None
    settings: Phase
    plan: Plan


@dataclass(frozen=True)
class Plan:
    """Each parameter in exactly one group for the whole run, and every group's rate at every step.

    Made by ``resolve``. The rate of update ``t`` (0-based) of group ``g`` is
    ``lr_scale_g * schedule_g(t; lr_g)``, in float64.

    Args:
        spec: What the user wrote.
        parameters: Every parameter, in model order.
        groups: In the spec's order, ``rest`` last.
        total_steps: Updates of the whole run, if known.
        steps_per_epoch: Updates of one epoch, if known.
        notes: What a reader should know: tied weights, patterns that take nothing.
        frozen: Names of the parameters that do not train; their group's rate is 0 where it has no others.
        since: The update that schedules count from.
        start: The first update that this plan is for.
        phase: What the spec says of this phase, where this is the plan of one.
        phases: What becomes of the spec's phases; empty without. ``groups`` are then those of the whole run, and
            each phase's plan says what they have there.
    """

    spec: Spec
    parameters: tuple[Parameter, ...]
    groups: tuple[PlanGroup, ...]
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    frozen: frozenset[str] = frozenset()
    since: int = 0
    start: int = 0
    phase: Phase | None = None
    phases: tuple[PlanPhase, ...] = ()

    @property
    def phase_plans(self) -> tuple[Plan, ...]:
        """The plans of its phases, one after the other; itself without any."""
        return tuple(phase.plan for phase in self.phases) or (self,)

    @property
    def reacting_units(self) -> set[str]:
        """What reactive schedules, if any, look at the metrics of: each ``"step"``, each ``"epoch"``."""
        reactions = [group.schedule.start_reaction(group.lr) for there in self.phase_plans for group in there.groups]
        return {reaction.settings.unit for reaction in reactions if reaction is not None}

    def plan_at(self, step: int) -> Plan:
        """The plan as it is at one step: itself, or its phase's."""
        return self.phases[self.phase_index(step)].plan if self.phases else self

    def phase_index(self, step: int) -> int:
        """Which of the phases makes update ``step``; the last one goes on beyond its end."""
        return sum(phase.stop is not None and phase.stop <= step for phase in self.phases[:-1])

    def scale_rates(self, factor: float) -> Plan:
        """The plan with every rate times a factor: each group's ``lr_scale`` is multiplied with it."""
        groups = tuple(replace(group, lr_scale=factor * group.lr_scale) for group in self.groups)
        phases = tuple(phase._replace(plan=phase.plan.scale_rates(factor)) for phase in self.phases)
        return replace(self, groups=groups, phases=phases)

    @cached_property
    def group_of(self) -> Mapping[str, int]:
        """Index of the group of each parameter, by its first name."""
        return {name: index for index, group in enumerate(self.groups) for name in group.parameters}

    def lr(self, step: int) -> dict[str, float]:
        """Every group's rate at one step.

        A reactive schedule (``ReduceLROnPlateau``) is shown as if it never reacted.

        Args:
            step: 0-based count of updates; may lie beyond ``total_steps``.

        Raises:
            SpecError: A step that is negative or not a whole number, or a rate that is impossible there.
        """
        return dict(zip((group.name for group in self.groups), self.rates(step), strict=True))

    def rates(self, step: int) -> list[float]:
        """``lr(step)`` without the names, in the order of ``groups``."""
        step = whole_number("step", step, 0)
        start, stop, rates = self._computed
        if not start <= step < stop:
            start, stop, rates = self._compute_around(step)
            self.__dict__["_computed"] = (start, stop, rates)
        return list(rates[step - start])

    def momenta(self, step: int) -> list[float | None]:
        """Each group's momentum at one step where it moves (``moves_momentum``), else None.

        Where the phase warms it up over N updates, update ``k`` of the phase has ``(k + 1) / (N + 1)`` of it, until
        it has all.
        """
        there = self.plan_at(step)
        if not there.moving:
            return [None] * len(self.groups)
        updates = there.warmup_steps
        warmth = min(1.0, (step - there.start + 1) / (updates + 1))
        return [
            warmth * float(there._full_momentum(group, step)) if there.moves_momentum(group) else None
            for group in there.groups
        ]

    @cached_property
    def moving(self) -> tuple[int, ...]:
        """Indices of the groups whose momentum moves, in a plan without phases."""
        return tuple(index for index, group in enumerate(self.groups) if self.moves_momentum(group))

    def moves_momentum(self, group: PlanGroup) -> bool:
        """Whether a group's momentum changes from update to update: by its schedule, or as the phase warms it up."""
        return group.schedule.drives_momentum or bool(self.warmup_steps and group.optimizer.first_momentum)

    @property
    def warmup_steps(self) -> int:
        """Updates over which the phase's momentum rises to its value."""
        return 0 if self.phase is None else self.phase.momentum_warmup

    def _full_momentum(self, group: PlanGroup, step: int) -> Any:
        if group.schedule.drives_momentum:
            return group.schedule.momentum(self.clock(group, step))
        return group.optimizer.first_momentum

    def table(self, start: int = 0, stop: int | None = None) -> Float64:
        """Every group's rate at every step of ``start`` to ``stop - 1``.

        Args:
            start: First step.
            stop: Step after the last one; None is ``total_steps``.

        Returns:
            Shape ``(stop - start, groups)``, in the order of ``groups``, each group's column contiguous.

        Raises:
            SpecError: ``stop`` and ``total_steps`` both unknown, not ``0 <= start <= stop``, or a rate that is
                negative or not finite.
        """
        if stop is None:
            stop = self.total_steps
        if stop is None:
            raise SpecError("how long is the run? Give plan.table(stop=...) or resolve(..., total_steps=...).")
        start, stop = whole_number("table: start", start, 0), whole_number("table: stop", stop, 0)
        if start > stop:
            raise SpecError(f"table(start={start}, stop={stop}): must be 0 <= start <= stop.")
        table = np.empty((len(self.groups), stop - start)).T
        for first in range(start, stop, _BLOCK_STEPS):
            steps = np.arange(first, min(first + _BLOCK_STEPS, stop))
            self._fill(steps, table[first - start : first - start + len(steps)])
        return table

    def at(self, steps: Any) -> Float64:
        """Every group's rate at some steps.

        Args:
            steps: (n,) whole numbers >= 0, in any order; they may lie beyond ``total_steps``.

        Returns:
            Shape ``(n, groups)``, as ``table``'s.

        Raises:
            SpecError: A step that is no whole number >= 0, or a rate that is negative or not finite.
        """
        wanted = np.asarray(steps)
        if wanted.ndim != 1 or (wanted.size and (wanted.dtype.kind not in "iu" or wanted.min() < 0)):
            raise SpecError(f"steps={reprlib.repr(steps)}: must be a list of whole numbers >= 0.")
        table = np.empty((len(self.groups), wanted.size)).T
        for first in range(0, wanted.size, _BLOCK_STEPS):
            block = slice(first, first + _BLOCK_STEPS)
            self._fill(wanted[block].astype(np.int64), table[block])
        return table

    def clock(self, group: PlanGroup, step: Any) -> Any:
        """The step, or array of steps, in the unit that the group's schedule counts."""
        return group.schedule.position(step - self.since, self.steps_per_epoch or 1)

    def rates_before_scale(self, group: PlanGroup, steps: Any) -> Float64:
        """A group's rates at some steps before ``lr_scale``.

        Args:
            group: One of ``groups``.
            steps: 0-based updates, shape (n,).

        Raises:
            SpecError: A rate that is negative or not finite.
        """
        try:
            return group.schedule(self.clock(group, steps), group.lr)  # type: ignore[no-any-return]
        except SpecError as error:
            raise SpecError(f"group {group.name!r}: {error}") from None

    def _fill(self, steps: Any, table: Float64) -> None:
        """The rates at some steps; what groups of one schedule have in common is computed once."""
        for phase in self.phases:
            last = phase is self.phases[-1]
            inside = (steps >= phase.start) & (last or steps < (phase.stop or 0))
            if inside.any():
                part = np.empty((len(self.groups), int(inside.sum()))).T
                phase.plan._fill(steps[inside], part)
                table[inside] = part
        if self.phases:
            return
        clocks: dict[tuple[str, bool], Float64] = {}  # what schedules count alike is converted once
        for schedule, columns in self._columns_by_schedule.items():
            groups = [self.groups[column] for column in columns]
            counted = (schedule.unit, schedule.every_step)
            if counted not in clocks:
                clocks[counted] = np.asarray(self.clock(groups[0], steps), dtype=np.float64)
            try:
                rates = schedule.rates(clocks[counted], [group.lr for group in groups])
            except SpecError as error:
                raise SpecError(f"group {groups[0].name!r}: {error}") from None
            for rate, group, column in zip(rates.T, groups, columns, strict=True):
                if not math.isfinite(group.lr_scale * float(rate.max(initial=0.0))):
                    raise SpecError(f"group {group.name!r}: lr_scale={group.lr_scale:g} makes a rate infinite.")
                np.multiply(0.0 if self.is_frozen(group) else group.lr_scale, rate, out=table[:, column])

    def is_frozen(self, group: PlanGroup) -> bool:
        """Whether a group has parameters, and none of them trains."""
        return bool(group.parameters) and self.frozen.issuperset(group.parameters)

    @cached_property
    def _columns_by_schedule(self) -> dict[Schedule, list[int]]:
        """The columns of each schedule."""
        sharing: dict[Schedule, list[int]] = {}
        for column, group in enumerate(self.groups):
            sharing.setdefault(group.schedule, []).append(column)
        return sharing

    @cached_property
    def _computed(self) -> tuple[int, int, list[list[float]]]:
        """The rates that ``rates`` has computed ahead, and for which steps: a loop asks for one after the other."""
        return (0, 0, [])

    def _compute_around(self, step: int) -> tuple[int, int, list[list[float]]]:
        start = step - step % _AHEAD_STEPS
        stop = start + _AHEAD_STEPS
        if self.total_steps is not None and step < self.total_steps:
            stop = min(stop, self.total_steps)
        try:
            return start, stop, self.table(start, stop).tolist()
        except SpecError:  # somewhere in the block; at this step, perhaps, all is well
            return step, step + 1, self.table(step, step + 1).tolist()

    def lowering(self, backend: str) -> dict[str, str]:
        """How a backend will apply each group's rate, in words; phase by phase where they differ.

        Args:
            backend: A name such as ``"oneflow-graph"``; its framework need not be installed.

        Raises:
            SpecError: No such backend.
            Unsupported: The backend cannot apply this plan exactly.
        """
        from layered_lr.plans.lowering import lowering_of

        timeline = self.phase_plans if self.phases else ()
        by_phase = [[str(lowering) for lowering in lowering_of(there, backend, timeline)] for there in self.phase_plans]
        by_group = ("; then ".join(dict.fromkeys(words)) for words in zip(*by_phase, strict=True))
        return dict(zip((group.name for group in self.groups), by_group, strict=True))

    def plot(self, ax: Axes | None = None, scale: Scale = "auto") -> Axes:
        """Draw every group's rate over the whole run; needs matplotlib (``pip install 'layered-lr[plot]'``).

        ``plan.plot().figure.savefig("plan.png")`` needs no display. Runs of any length are drawn without losing a
        spike. Reactive schedules are drawn as if they never reacted.

        Args:
            ax: Where to draw; None makes a figure of its own, which pyplot does not know.
            scale: Of the rates: ``"log"``, ``"linear"``, or ``"auto"``, which is log where they span more than two
                decades and none is zero.

        Returns:
            The axes.

        Raises:
            LayeredLRError: matplotlib is not installed.
            SpecError: ``total_steps`` is unknown, no such scale, or a rate that is impossible.
        """
        from layered_lr.plans.picture import plot

        return plot(self, ax, scale)

    @overload
    def to_csv(self, path: None = None) -> str: ...
    @overload
    def to_csv(self, path: str | Path) -> None: ...
    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Every rate of the run as CSV: ``step``, ``epoch`` where its length is known, and a column for each group.

        Args:
            path: File to write to, whole or not at all; None returns the text.

        Returns:
            The text, or None where it went to a file. Each rate has the digits that give the same float64 again.

        Raises:
            SpecError: ``total_steps`` is unknown, a rate that is impossible, or a path that cannot be.
            LayeredLRError: The file cannot be written.
        """
        from layered_lr.plans.export import csv_chunks, write_csv

        if path is None:
            return "".join(csv_chunks(self))
        write_csv(self, path)
        return None

    def diff(self, other: Plan) -> PlanDiff:
        """What another plan does otherwise: groups, membership, settings, and rates step by step.

        Args:
            other: The plan to compare with; what this one has is called before, what the other has after.

        Returns:
            False where nothing differs; a text to read when printed.

        Raises:
            SpecError: ``other`` is no plan, or a rate that is impossible.
        """
        from layered_lr.plans.diff import compare_plans

        if not isinstance(other, Plan):
            raise SpecError(f"diff: got a {type(other).__name__}; must be a plan, as resolve() and plan() give it.")
        return compare_plans(self, other)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain tables, lists, strings and numbers."""
        return {
            "spec": self.spec.to_dict(),
            "parameters": [[p.name, list(p.shape), list(p.aliases), p.dtype] for p in self.parameters],
            "total_steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def __str__(self) -> str:
        from layered_lr.plans.text import plan_text

        return plan_text(self)
