"""The plan: the exact groups and every rate of the run, before anything trains and without any framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from layered_lr.arrays import Float64, Int64
from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.depth import find_depths
from layered_lr.models.parameter import Parameter
from layered_lr.plans.group import PlanGroup
from layered_lr.printed import shown
from layered_lr.schedules import Schedule
from layered_lr.spec.phases import Phase
from layered_lr.spec.spec import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layered_lr.plans.diff import PlanDiff
    from layered_lr.reports.curves import Scale

_BLOCK_STEPS = 65_536  # a table is filled in blocks of so many steps, which limits the temporary memory
_AHEAD_STEPS = 1024  # rates are computed for so many steps at once, which costs a few microseconds for each step

Steps: TypeAlias = Any
"""A step, or an array of steps; what is computed from it has the same kind."""


class PlanPhase(NamedTuple):
    """One phase of a plan, in which the optimizer and what trains stay the same.

    Args:
        start: Its first update.
        stop: The update after its last one; None if the length of the run is unknown.
        settings: The phase of the spec.
        plan: The plan for this phase, with the same groups, without phases of its own.
    """

    start: int
    stop: int | None
    settings: Phase
    plan: Plan


@dataclass(frozen=True)
class Plan:
    """The groups of a run with their parameters, and every group's rate at every step.

    ``resolve`` makes it. Each parameter is in exactly one group for the whole run. In update ``t`` (0-based), the rate
    of group ``g`` is ``lr_scale_g * schedule_g(t; lr_g)``, in float64.

    Args:
        spec: The user's spec.
        parameters: Every parameter, in model order.
        groups: The groups in the spec's order, ``rest`` last.
        total_steps: Updates of the whole run, if known.
        steps_per_epoch: Updates of one epoch, if known.
        notes: Hints for a reader: tied weights, patterns that match nothing, phases that never begin.
        frozen: Names of the parameters that do not train. If all parameters of a group are frozen, its rate is 0.
        since: The update that schedules count from.
        start: The first update that this plan is for.
        phase: The phase of the spec, if this is the plan for one phase.
        beginning: Names of the groups whose optimizer begins in this phase, so that ``momentum_warmup`` is theirs.
        phases: The phases, if the spec has any. ``groups`` are then those of the whole run; what they are in a phase,
            the plan of the phase says.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("backbone", lr_scale=0.5)], schedule=ll.StepLR(2, gamma=0.5))
        >>> plan = ll.resolve(spec, [("backbone.weight", (8, 8)), ("head.weight", (2, 8))], total_steps=4)
        >>> plan.lr(0)
        {'backbone': 0.05, 'rest': 0.1}
        >>> plan.table()
        array([[0.05 , 0.1  ],
               [0.05 , 0.1  ],
               [0.025, 0.05 ],
               [0.025, 0.05 ]])
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
    beginning: frozenset[str] = frozenset()
    phases: tuple[PlanPhase, ...] = ()

    @property
    def phase_plans(self) -> tuple[Plan, ...]:
        """The plans of all phases, in order; without phases, only this plan."""
        return tuple(phase.plan for phase in self.phases) or (self,)

    @property
    def reacting_units(self) -> set[str]:
        """How often reactive schedules read their metrics: ``"step"``, ``"epoch"``, both, or never (empty)."""
        reactions = [group.schedule.start_reaction(group.lr) for plan in self.phase_plans for group in plan.groups]
        return {reaction.settings.unit for reaction in reactions if reaction is not None}

    def plan_at(self, step: int) -> Plan:
        """Return the plan that holds at one step: the plan of its phase, or without phases this plan.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body")], phases=[ll.Phase("2 steps", frozen="body"), ll.Phase()])
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> sorted(plan.plan_at(1).frozen), sorted(plan.plan_at(2).frozen)
            (['body.w'], [])
        """
        return self.phases[self.phase_index(step)].plan if self.phases else self

    def phase_index(self, step: int) -> int:
        """Return the index of the phase that makes update ``step``; the last phase also makes all later updates.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body")], phases=[ll.Phase("2 steps", frozen="body"), ll.Phase()])
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> [plan.phase_index(step) for step in range(4)]
            [0, 0, 1, 1]
        """
        return sum(phase.stop is not None and phase.stop <= step for phase in self.phases[:-1])

    def scale_rates(self, factor: float) -> Plan:
        """Return this plan with every group's ``lr_scale`` multiplied by a factor.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.scale_rates(0.1).lr(0)
            {'body': 0.005000000000000001, 'rest': 0.010000000000000002}
        """
        groups = tuple(replace(group, lr_scale=factor * group.lr_scale) for group in self.groups)
        phases = tuple(phase._replace(plan=phase.plan.scale_rates(factor)) for phase in self.phases)
        return replace(self, groups=groups, phases=phases)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """The name of each parameter's optimizer, such as ``"AdamW"``, by the parameter's first name."""
        return {name: type(group.optimizer).__name__ for group in self.groups for name in group.parameters}

    @cached_property
    def group_of(self) -> Mapping[str, int]:
        """The index of each parameter's group, by the parameter's first name."""
        return {name: index for index, group in enumerate(self.groups) for name in group.parameters}

    def lr(self, step: int) -> dict[str, float]:
        """Return every group's rate at one step, by the group's name.

        For ``ReduceLROnPlateau``, this is the rate without any reduction.

        Args:
            step: 0-based update; it may be beyond ``total_steps``.

        Raises:
            SpecError: The step is not a whole number >= 0, or a rate is negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.lr(2)
            {'body': 0.025, 'rest': 0.05}
        """
        return dict(zip((group.name for group in self.groups), self.rates(step), strict=True))

    def rates(self, step: int) -> list[float]:
        """Return every group's rate at one step, in the order of ``groups``.

        Args:
            step: 0-based update; it may be beyond ``total_steps``.

        Raises:
            SpecError: The step is not a whole number >= 0, or a rate is negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.rates(2)
            [0.025, 0.05]
        """
        step = whole_number("step", step, 0)
        start, stop, rates = self._computed
        if not start <= step < stop:
            start, stop, rates = self._compute_around(step)
            self.__dict__["_computed"] = (start, stop, rates)
        return list(rates[step - start])

    def momenta(self, step: int) -> list[float | None]:
        """Return each group's momentum at one step, or None if it does not change during the run.

        If the phase warms the momentum up over N updates, its update ``k`` has ``(k + 1) / (N + 1)`` of the momentum,
        and from update N on it has all of it.

        Example:
            >>> import layered_lr as ll
            >>> schedule = ll.CyclicLR(0.01, 0.1, step_size_up=2, base_momentum=0.5, max_momentum=0.9)
            >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1, momentum=0.9), schedule=schedule), [("w", (2,))])
            >>> plan.momenta(0), plan.momenta(2)
            ([0.9], [0.5])
        """
        plan = self.plan_at(step)
        if not plan.moving:
            return [None] * len(self.groups)
        part = min(1.0, (step - plan.start + 1) / (plan.warmup_steps + 1))
        return [
            (part if group.name in plan.beginning else 1.0) * plan._full_momentum(group, step)
            if plan.moves_momentum(group)
            else None
            for group in plan.groups
        ]

    @cached_property
    def moving(self) -> tuple[int, ...]:
        """The indices of the groups whose momentum changes, in a plan without phases."""
        return tuple(index for index, group in enumerate(self.groups) if self.moves_momentum(group))

    def moves_momentum(self, group: PlanGroup) -> bool:
        """Whether a group's momentum changes from update to update, by its schedule or by the phase's warm-up.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.moves_momentum(plan.groups[0])
            False
        """
        warms_up = self.warmup_steps and group.name in self.beginning and getattr(group.optimizer, "momentum", None)
        return group.schedule.drives_momentum or bool(warms_up)

    @property
    def warmup_steps(self) -> int:
        """Updates over which the momentum rises to its value in this phase."""
        return 0 if self.phase is None else self.phase.momentum_warmup

    def _full_momentum(self, group: PlanGroup, step: int) -> float:
        if group.schedule.drives_momentum:
            return cast(float, group.schedule.momentum(self.clock(group, step)))
        return group.optimizer.first_momentum or 0.0

    def table(self, start: int = 0, stop: int | None = None) -> Float64:
        """Return every group's rate at every step from ``start`` to ``stop - 1``.

        Args:
            start: The first step.
            stop: The step after the last one; None is ``total_steps``.

        Returns:
            float64 of shape ``(stop - start, groups)``, in the order of ``groups``; each group's column is contiguous.

        Raises:
            SpecError: ``stop`` and ``total_steps`` are both unknown, ``0 <= start <= stop`` does not hold, or a rate is
                negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.table(1, 3)
            array([[0.05 , 0.1  ],
                   [0.025, 0.05 ]])
        """
        if stop is None:
            stop = self.total_steps
        if stop is None:
            raise SpecError(
                "the plan does not know how long the run is: give table(stop=...), or resolve(..., total_steps=...)."
            )
        start, stop = whole_number("table: start", start, 0), whole_number("table: stop", stop, 0)
        if start > stop:
            raise SpecError(f"table(start={start}, stop={stop}): must be 0 <= start <= stop.")
        table = np.empty((len(self.groups), stop - start)).T
        for first in range(start, stop, _BLOCK_STEPS):
            steps = np.arange(first, min(first + _BLOCK_STEPS, stop))
            self._fill(steps, table[first - start : first - start + len(steps)])
        return table

    def at(self, steps: ArrayLike) -> Float64:
        """Return every group's rate at some steps.

        Args:
            steps: Whole numbers >= 0, shape (n,), in any order; they may be beyond ``total_steps``.

        Returns:
            float64 of shape ``(n, groups)``, in the order of ``groups``; each group's column is contiguous.

        Raises:
            SpecError: A step is not a whole number >= 0, or a rate is negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.at([0, 100])
            array([[5.0000000e-02, 1.0000000e-01],
                   [...e-17, ...e-17]])
        """
        wanted = np.asarray(steps)
        if wanted.ndim != 1 or (wanted.size and (wanted.dtype.kind not in "iu" or wanted.min() < 0)):
            raise SpecError(f"steps={shown(steps)}: must be a list of whole numbers >= 0.")
        table = np.empty((len(self.groups), wanted.size)).T
        for first in range(0, wanted.size, _BLOCK_STEPS):
            block = slice(first, first + _BLOCK_STEPS)
            self._fill(wanted[block].astype(np.int64), table[block])
        return table

    def clock(self, group: PlanGroup, step: Steps) -> Steps:
        """Convert a step, or an array of steps, into the unit that the group's schedule counts.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), schedule=ll.StepLR(2, unit="epoch"))
            >>> plan = ll.resolve(spec, [("w", (2,))], total_steps=40, steps_per_epoch=10)
            >>> plan.clock(plan.groups[0], 25)
            2
        """
        return group.schedule.position(step - self.since, self.steps_per_epoch or 1)

    def rates_before_scale(self, group: PlanGroup, steps: Int64) -> Float64:
        """Return a group's rates at some steps, before ``lr_scale``.

        Args:
            group: One of ``groups``.
            steps: 0-based updates, shape (n,).

        Raises:
            SpecError: A rate is negative or not finite.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.rates_before_scale(plan.groups[0], np.array([0, 2]))
            array([0.1 , 0.05])
        """
        try:
            return group.schedule.rates(self.clock(group, steps), (group.lr,))[:, 0]
        except SpecError as error:
            raise SpecError(f"group {group.name!r}: {error}") from None

    def _fill(self, steps: Int64, table: Float64) -> None:
        """Write the rates at some steps into a table; the common part of groups with one schedule is computed once."""
        for phase in self.phases:
            last = phase is self.phases[-1]
            inside = (steps >= phase.start) & (last or steps < (phase.stop or 0))
            if inside.any():
                part = np.empty((len(self.groups), int(inside.sum()))).T
                phase.plan._fill(steps[inside], part)
                table[inside] = part
        if self.phases:
            return
        clocks: dict[tuple[str, bool], Float64] = {}  # the steps in each unit, converted once
        for schedule, columns in self._columns_by_schedule.items():
            groups = [self.groups[column] for column in columns]
            counted = (schedule.unit, schedule.every_step)
            if counted not in clocks:
                clocks[counted] = np.asarray(self.clock(groups[0], steps), dtype=np.float64)
            try:
                rates = schedule.rates(clocks[counted], [group.lr for group in groups])
            except SpecError as error:
                raise type(error)(f"group {groups[0].name!r}: {error}") from None
            for rate, group, column in zip(rates.T, groups, columns, strict=True):
                if not math.isfinite(group.lr_scale * float(rate.max(initial=0.0))):
                    raise SpecError(
                        f"group {group.name!r}: lr_scale={group.lr_scale:g} makes a rate infinite. Give a smaller one."
                    )
                np.multiply(0.0 if self.is_frozen(group) else group.lr_scale, rate, out=table[:, column])

    def is_frozen(self, group: PlanGroup) -> bool:
        """Whether a group has parameters and none of them trains.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body")], phases=[ll.Phase("2 steps", frozen="body"), ll.Phase()])
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.plan_at(0).is_frozen(plan.groups[0]), plan.plan_at(2).is_frozen(plan.groups[0])
            (True, False)
        """
        return bool(group.parameters) and self.frozen.issuperset(group.parameters)

    @cached_property
    def _columns_by_schedule(self) -> dict[Schedule, list[int]]:
        """The columns of the groups that share each schedule."""
        columns: dict[Schedule, list[int]] = {}
        for column, group in enumerate(self.groups):
            columns.setdefault(group.schedule, []).append(column)
        return columns

    @cached_property
    def _computed(self) -> tuple[int, int, list[list[float]]]:
        """The block of rates that ``rates`` has computed: first step, step after the last, and the rates."""
        return (0, 0, [])

    def _compute_around(self, step: int) -> tuple[int, int, list[list[float]]]:
        start = step - step % _AHEAD_STEPS
        stop = start + _AHEAD_STEPS
        if self.total_steps is not None and step < self.total_steps:
            stop = min(stop, self.total_steps)
        try:
            return start, stop, self.table(start, stop).tolist()
        except SpecError:  # one of the steps has no rate, but perhaps not this step
            return step, step + 1, self.table(step, step + 1).tolist()

    def lowering(self, backend: str) -> dict[str, str]:
        """Return how a backend will apply each group's rate, in words, by the group's name; phase by phase if needed.

        Args:
            backend: A name such as ``"oneflow-graph"``. Its framework need not be installed.

        Raises:
            SpecError: No backend has that name.
            Unsupported: The backend cannot apply this plan exactly.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.lowering("oneflow-graph")["body"]
            'native StepLR, native lr_scale'
        """
        from layered_lr.plans.lowering import lowering_of

        timeline = self.phase_plans if self.phases else ()
        by_phase = [[str(lowering) for lowering in lowering_of(plan, backend, timeline)] for plan in self.phase_plans]
        by_group = ("; then ".join(dict.fromkeys(words)) for words in zip(*by_phase, strict=True))
        return dict(zip((group.name for group in self.groups), by_group, strict=True))

    def plot(self, ax: Axes | None = None, scale: Scale = "auto") -> Axes:
        """Draw every group's rate over the whole run; needs matplotlib (``pip install 'layered-lr[plot]'``).

        ``plan.plot().figure.savefig("plan.png")`` needs no display. Also in a very long run, every spike is drawn.
        ``ReduceLROnPlateau`` is drawn without any reduction.

        Args:
            ax: Where to draw; None makes a figure of its own, which pyplot does not know.
            scale: Of the rates: ``"log"``, ``"linear"``, or ``"auto"``, which is log where a linear axis would press
                lines flat: one is below a hundredth of the highest rate for a tenth of the run, or most are below a
                tenth of it for half of the run. A log axis ends in zero where rates are zero, such as those of frozen
                groups, or almost zero.

        Returns:
            The axes.

        Raises:
            LayeredLRError: matplotlib is not installed.
            SpecError: ``total_steps`` is unknown, the scale is unknown, or a rate is negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> plan.plot(scale="linear").get_yscale()
            'linear'
        """
        from layered_lr.plans.picture import plot

        return plot(self, ax, scale)

    @overload
    def to_csv(self, path: None = None) -> str: ...
    @overload
    def to_csv(self, path: str | Path) -> None: ...
    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write every rate of the run as CSV: ``step``, ``epoch`` if its length is known, and a column for each group.

        A group's name that begins with ``=``, ``+``, ``-`` or ``@``, which a spreadsheet would compute, has an
        apostrophe before it.

        Args:
            path: The file to write, completely or not at all, over nothing but rates of the same groups; None returns
                the text.

        Returns:
            The text, or None if it was written to a file. Each rate has enough digits to give the same float64 again.

        Raises:
            SpecError: ``total_steps`` is unknown, a rate is negative or not finite, or the path is not possible.
            LayeredLRError: The file cannot be written.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> print(plan.to_csv())
            step,body,rest
            0,0.05,0.1
            1,0.05,0.1
            2,0.025,0.05
            3,0.025,0.05
        """
        from layered_lr.plans.export import csv_chunks, write_csv

        if path is None:
            return "".join(csv_chunks(self))
        write_csv(self, path)
        return None

    def diff(self, other: Plan) -> PlanDiff:
        """Find the differences to another plan: groups, their parameters, settings, and rates step by step.

        Args:
            other: The plan to compare with. In the result, this plan is "before" and the other is "after".

        Returns:
            The differences. It is false if there are none, and a readable text when printed.

        Raises:
            SpecError: ``other`` is not a plan, or a rate is negative or not finite.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
            >>> plan = ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4)
            >>> bool(plan.diff(plan)), bool(plan.diff(plan.scale_rates(0.5)))
            (False, True)
        """
        from layered_lr.plans.diff import compare_plans

        if not isinstance(other, Plan):
            raise SpecError(f"diff: got a {type(other).__name__}; must be a plan, as resolve() and plan() return it.")
        return compare_plans(self, other)

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """The number of each parameter's layer, from 0 next to the images to the head; by name.

        Raises:
            SpecError: The names do not tell it; see ``layer_decay``.

        Example:
            >>> import layered_lr as ll
            >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1)), [("0.weight", (4, 4)), ("1.weight", (2, 4))])
            >>> plan.depths
            {'0.weight': 0, '1.weight': 1}
        """
        return find_depths(self.parameters)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is seldom meant, each in a sentence; empty where all is well.

        A group that never moves, a rate a thousand times another's, a schedule that ends before the run or beyond it,
        weight decay on normalisations.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0)])
            >>> ll.resolve(spec, [("body.w", (2,)), ("head.w", (2,))], total_steps=4).warnings
            ("group 'body' never moves: its lr_scale is 0",)
        """
        from layered_lr.plans.warnings import find_warnings

        return tuple(find_warnings(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain tables, lists, strings and numbers; ``plan_from_dict`` makes it a plan again."""
        return {
            "spec": self.spec.to_dict(),
            "parameters": [_to_row(parameter, self.spec.needs_types) for parameter in self.parameters],
            "total_steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        from layered_lr.plans.text import plan_text

        return plan_text(self)


def _to_row(parameter: Parameter, with_types: bool) -> list[Any]:
    """A parameter as ``resolve`` takes it, in plain lists."""
    row = [parameter.name, list(parameter.shape), list(parameter.aliases), parameter.dtype]
    if parameter.answers:
        return [*row, parameter.requires_grad, list(parameter.types), parameter.depth, True]
    if parameter.depth is not None:
        return [*row, parameter.requires_grad, list(parameter.types), parameter.depth]
    if with_types:
        return [*row, parameter.requires_grad, list(parameter.types)]
    return row if parameter.requires_grad else [*row, False]
