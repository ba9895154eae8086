"""The plan: exact groups and every rate of the run, before anything trains and without any framework."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.matching import Parameter, assign, selected, undecayed, unused_patterns
from layered_lr.models.nn_modules import framework_of, parameters_of
from layered_lr.optimizers import Optimizer
from layered_lr.optimizers.handover import check_carry
from layered_lr.schedules import Constant, Float64, Schedule
from layered_lr.spec.phases import Phase, steps_until
from layered_lr.spec.spec import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layered_lr.plans.diff import PlanDiff
    from layered_lr.reports.curves import Scale

REST = "rest"
_UNSAID: tuple[Any, ...] = ((), "float32")  # a parameter's aliases and dtype
_BLOCK_STEPS = 65_536  # a table is filled in blocks, which bounds what is needed beside it
_AHEAD_STEPS = 1024  # one step's rates cost a few microseconds when they are computed this many at once


class Part(NamedTuple):
    """Parameters of a group that have every hyperparameter in common.

    Args:
        parameters: Names in model order.
        optimizer: With the group's ``lr`` and every other value.
    """

    parameters: tuple[str, ...]
    optimizer: Optimizer


@dataclass(frozen=True)
class PlanGroup:
    """A group with its parameters, and with everything filled in that the spec left out.

    Args:
        name: The group's name, or ``rest``.
        parameters: Names in model order; empty for an optional group that matches nothing.
        elements: How many numbers the parameters hold together.
        optimizer: The spec's optimizer with what the group sets for itself, ``lr`` among it.
        lr_scale: Multiplies the scheduled rate.
        schedule: The group's own, the spec's, or ``Constant()``.
        undecayed: Those of ``parameters`` whose weight decay is 0 by the spec's ``no_weight_decay``.
    """

    name: str
    parameters: tuple[str, ...]
    elements: int
    optimizer: Optimizer
    lr_scale: float
    schedule: Schedule
    undecayed: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The group, cut in two where only some of its parameters decay; one part otherwise, empty or not."""
        bare = replace(self.optimizer, weight_decay=0.0)
        free = set(self.undecayed) if self.optimizer.weight_decay else set()
        decayed = tuple(name for name in self.parameters if name not in free)
        if not free:
            return (Part(self.parameters, self.optimizer),)
        rest = Part(self.undecayed, bare)
        return (Part(decayed, self.optimizer), rest) if decayed else (rest,)

    @property
    def lr(self) -> float:
        """The rate that the schedule starts from."""
        return self.optimizer.lr

    @property
    def is_reactive(self) -> bool:
        """Whether the rate is decided while training, from what is measured."""
        return self.schedule.reaction(self.lr) is not None


class Segment(NamedTuple):
    """A stretch of a plan with phases, in which the optimizer and what trains stay the same.

    Args:
        start: Its first update.
        stop: The update after its last one; None where the run's length is unknown.
        phase: What the spec says of it.
        plan: The plan as it is there, of the same groups, without segments of its own.
    """

    start: int
    stop: int | None
    phase: Phase
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
        phase: What the spec says of this stretch, where it has phases and this is the plan of one of them.
        segments: What becomes of the spec's phases; empty without. ``groups`` are then those of the whole run, and
            each segment's plan says what they have there.
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
    segments: tuple[Segment, ...] = ()

    @property
    def stretches(self) -> tuple[Plan, ...]:
        """The plans of its segments, one after the other; itself without any."""
        return tuple(segment.plan for segment in self.segments) or (self,)

    @property
    def reacting_units(self) -> set[str]:
        """What reactive schedules, if any, look at the metrics of: each ``"step"``, each ``"epoch"``."""
        reactions = [group.schedule.reaction(group.lr) for there in self.stretches for group in there.groups]
        return {reaction.settings.unit for reaction in reactions if reaction is not None}

    def there(self, step: int) -> Plan:
        """The plan as it is at one step: itself, or its segment's."""
        return self.segments[self.place(step)].plan if self.segments else self

    def place(self, step: int) -> int:
        """Which of the segments makes update ``step``; the last one goes on beyond its end."""
        return sum(segment.stop is not None and segment.stop <= step for segment in self.segments[:-1])

    def scaled(self, factor: float) -> Plan:
        """The plan with every rate times a factor: each group's ``lr_scale`` is multiplied with it."""
        groups = tuple(replace(group, lr_scale=factor * group.lr_scale) for group in self.groups)
        segments = tuple(segment._replace(plan=segment.plan.scaled(factor)) for segment in self.segments)
        return replace(self, groups=groups, segments=segments)

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
        start, stop, rates = self._at_hand
        if not start <= step < stop:
            start, stop, rates = self._computed_around(step)
            self.__dict__["_at_hand"] = (start, stop, rates)
        return list(rates[step - start])

    def momenta(self, step: int) -> list[float | None]:
        """Each group's momentum at one step where it moves (``moves_momentum``), else None.

        Where the phase warms it up over N updates, update ``k`` of the phase has ``(k + 1) / (N + 1)`` of it, until
        it has all.
        """
        there = self.there(step)
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
        """Indices of the groups whose momentum moves, in a plan without segments."""
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

    def unscaled(self, group: PlanGroup, steps: Any) -> Float64:
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
        for segment in self.segments:
            last = segment is self.segments[-1]
            inside = (steps >= segment.start) & (last or steps < (segment.stop or 0))
            if inside.any():
                part = np.empty((len(self.groups), int(inside.sum()))).T
                segment.plan._fill(steps[inside], part)
                table[inside] = part
        if self.segments:
            return
        clocks: dict[tuple[str, bool], Float64] = {}  # what schedules count alike is converted once
        for schedule, columns in self._sharing.items():
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
    def _sharing(self) -> dict[Schedule, list[int]]:
        """The columns of each schedule."""
        sharing: dict[Schedule, list[int]] = {}
        for column, group in enumerate(self.groups):
            sharing.setdefault(group.schedule, []).append(column)
        return sharing

    @cached_property
    def _at_hand(self) -> tuple[int, int, list[list[float]]]:
        """The rates that ``rates`` has computed ahead, and for which steps: a loop asks for one after the other."""
        return (0, 0, [])

    def _computed_around(self, step: int) -> tuple[int, int, list[list[float]]]:
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
        from layered_lr.registry import lowering_of

        timeline = self.stretches if self.segments else ()
        by_stretch = [[str(lowering) for lowering in lowering_of(there, backend, timeline)] for there in self.stretches]
        by_group = ("; then ".join(dict.fromkeys(words)) for words in zip(*by_stretch, strict=True))
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
        from layered_lr.plans.diff import differences

        if not isinstance(other, Plan):
            raise SpecError(f"diff: got a {type(other).__name__}; must be a plan, as resolve() and plan() give it.")
        return differences(self, other)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain tables, lists, strings and numbers."""
        return {
            "spec": self.spec.to_dict(),
            "parameters": [[p.name, list(p.shape), list(p.aliases), p.dtype] for p in self.parameters],
            "total_steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Plan:
        """The plan that ``to_dict`` was called on."""
        return resolve(
            Spec.from_dict(table["spec"]), table["parameters"], table["total_steps"], table["steps_per_epoch"]
        )

    def __str__(self) -> str:
        from layered_lr.plans.text import plan_text

        return plan_text(self)


def resolve(
    spec: Spec,
    parameters: Any,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> Plan:
    """Assign every parameter to exactly one group.

    The first group that matches wins; what no group matches forms a last group, ``rest``, at the optimizer's
    ``lr``. A tied parameter (one array under several names) is one parameter, of the first group that matches
    any of its names.

    Args:
        spec: Groups in priority order; ``lr`` is dimensionless, per update.
        parameters: Names and shapes in model order, e.g. ``[("features.0.0.weight", (32, 3, 3, 3))]`` (OIHW),
            optionally with a third item, the tuple of the parameter's other names, and a fourth, its dtype; or a
            model of torch or OneFlow.
        total_steps: Updates of the whole run.
        steps_per_epoch: Updates of one epoch; needed by schedules with ``unit="epoch"``.

    Returns:
        Groups in spec order, names in model order.

    Raises:
        SpecError: A group that is not optional matches nothing that is left, a name that stands twice, no
            parameters at all, or a schedule in epochs without ``steps_per_epoch``.
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}: must be a layered_lr.Spec.")
    if total_steps is not None:
        total_steps = whole_number("total_steps", total_steps, 0)
    if steps_per_epoch is not None:
        steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch, 1)
    known = _parameters(parameters)
    whole = _resolved(replace(spec, phases=()), known, total_steps, steps_per_epoch)
    if not spec.phases:
        return whole
    segments = tuple(_segments(spec, whole))
    return replace(whole, spec=spec, segments=segments, notes=(*whole.notes, *_notes_of_phases(spec, segments)))


def _notes_of_phases(spec: Spec, segments: Sequence[Segment]) -> Iterator[str]:
    """Where the phases and the run do not end together."""
    for number in range(len(segments) + 1, len(spec.phases) + 1):
        yield f"phase {number} never begins: the run ends after {segments[-1].stop} steps"
    if len(segments) > len(spec.phases):
        yield f"phase {len(segments)} is the spec without phases: it follows where the last of these ends"


def _segments(spec: Spec, whole: Plan) -> Iterator[Segment]:
    """The segments of the spec's phases, up to the end of the run."""
    start, total = 0, whole.total_steps
    before: Plan | None = None
    phases = spec.phases if spec.phases[-1].until is None else (*spec.phases, Phase())
    for number, phase in enumerate(phases, start=1):
        try:
            stop = total if phase.until is None else steps_until(phase.until, whole.steps_per_epoch)
            if stop is not None and stop <= start and phase.until is not None:
                raise SpecError(f"until={phase.until!r} is update {stop}, and the phase begins at update {start}.")
            if total is not None and start >= total > 0:
                return
            stop = stop if total is None or stop is None else min(stop, total)
            there = _in_phase(spec, phase, whole, start, stop)
            _check_switch(phase, before, there)
            yield Segment(start, stop, phase, there)
            before = there
        except SpecError as error:
            raise SpecError(f"phase {number}: {error}") from None
        start = stop or 0


def _in_phase(spec: Spec, phase: Phase, whole: Plan, start: int, stop: int | None) -> Plan:
    since, length = 0, whole.total_steps
    if phase.counts_from == "phase":
        since, length = start, None if stop is None else stop - start
    there = _resolved(spec.in_phase(phase), whole.parameters, length, whole.steps_per_epoch)
    return replace(there, total_steps=stop, frozen=_frozen(phase, whole), since=since, start=start, phase=phase)


def _check_switch(phase: Phase, before: Plan | None, there: Plan) -> None:
    """Refuse what a phase says of a switch of the optimizer that cannot be, or that is none."""
    new = there.spec.optimizer
    is_switch = before is None or type(before.spec.optimizer) is not type(new)
    if before is not None and is_switch:
        for old, group in zip(before.groups, there.groups, strict=True):
            check_carry(old.optimizer, group.optimizer, phase.carry)
    if not phase.momentum_warmup:
        return
    if not is_switch:
        raise SpecError(f"momentum_warmup={phase.momentum_warmup}: the optimizer stays {type(new).__name__}.")
    if not any(getattr(group.optimizer, "momentum", 0.0) for group in there.groups):
        raise SpecError(
            f"momentum_warmup={phase.momentum_warmup}: {type(new).__name__} has no momentum > 0; it is for SGD, LARS "
            "and RMSprop with momentum."
        )


def _frozen(phase: Phase, plan: Plan) -> frozenset[str]:
    """The names of the parameters that do not train in a phase."""
    named = phase.trained if phase.frozen is None else phase.frozen
    if named is None:
        return frozenset()
    what = "trained" if phase.frozen is None else "frozen"
    taken = frozenset[str]().union(*(_members(what, item, plan) for item in named))
    return taken if what == "frozen" else frozenset(p.name for p in plan.parameters) - taken


def _members(what: str, item: str | int, plan: Plan) -> frozenset[str]:
    by_name = {group.name: group.parameters for group in plan.groups}
    if isinstance(item, int):
        if not -len(plan.groups) <= item < len(plan.groups):
            raise SpecError(f"{what}={item}: the plan has {len(plan.groups)} groups: {', '.join(by_name)}.")
        return frozenset(plan.groups[item].parameters)
    return frozenset(by_name[item]) if item in by_name else selected(what, item, plan.parameters)


def _resolved(spec: Spec, known: tuple[Parameter, ...], total_steps: int | None, steps_per_epoch: int | None) -> Plan:
    """The plan of a spec without phases."""
    bound = partial(_bound, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    members = assign([group.rule for group in spec.groups], known)
    free = undecayed(spec.no_weight_decay, known)
    groups = [
        PlanGroup(
            name=group.label,
            parameters=tuple(p.name for p in taken),
            elements=sum(p.elements for p in taken),
            optimizer=spec.optimizer_of(group),
            lr_scale=group.lr_scale,
            schedule=bound(group.schedule or spec.schedule or Constant()),
            undecayed=tuple(p.name for p in taken if p.name in free),
        )
        for group, taken in zip(spec.groups, members, strict=False)
    ]
    if rest := members[-1]:
        if any(group.name == REST for group in groups):
            raise SpecError(
                f"a group is called {REST!r}, the name of the group of what no group matches, which is not empty "
                f"({rest[0].name}, …): give it another name=..., or let it match everything that is left with '*'."
            )
        names = tuple(p.name for p in rest)
        elements = sum(p.elements for p in rest)
        schedule = bound(spec.schedule or Constant())
        bare = tuple(name for name in names if name in free)
        groups.append(PlanGroup(REST, names, elements, spec.optimizer, 1.0, schedule, bare))
    for group in groups:
        _check_group(group, steps_per_epoch)
    return Plan(spec, known, tuple(groups), total_steps, steps_per_epoch, tuple(_notes(spec, known, groups)))


def _bound(schedule: Schedule, total_steps: int | None, steps_per_epoch: int | None) -> Schedule:
    """The schedule with the lengths that it leaves out taken from the run's, in its own unit."""
    if total_steps is None or (schedule.unit == "epoch" and steps_per_epoch is None):
        return schedule
    return schedule.bound(total_steps if schedule.unit == "step" else -(-total_steps // (steps_per_epoch or 1)))


def _check_group(group: PlanGroup, steps_per_epoch: int | None) -> None:
    kind = type(group.schedule).__name__
    if group.parameters and group.schedule.unit == "epoch" and steps_per_epoch is None and not group.is_reactive:
        raise SpecError(
            f"group {group.name!r}: {kind}(unit='epoch') counts epochs: "
            "give steps_per_epoch=..., or a schedule with unit='step'."
        )
    if not group.schedule.is_bound:
        raise SpecError(
            f"group {group.name!r}: {kind} leaves out how long the run is: give total_steps=... (of the run, "
            "or in the schedule)."
        )
    if group.schedule.drives_momentum and not group.optimizer.first_momentum:
        raise SpecError(
            f"group {group.name!r}: {kind}(cycle_momentum=True) needs an optimizer with momentum > 0 (or betas[0]). "
            "Set cycle_momentum=False, or a momentum."
        )


def _parameters(parameters: Any) -> tuple[Parameter, ...]:
    if framework_of(parameters):
        parameters = [parameter for parameter, _ in parameters_of(parameters)]
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise SpecError(
            f"parameters={parameters!r}: must be a list such as [('features.0.weight', (32, 3, 3, 3))], or a model."
        )
    known: list[Parameter] = []
    seen: set[str] = set()
    for item in parameters:
        parameter = _parameter(item)
        for name in parameter.names:
            if name in seen:
                raise SpecError(f"parameters: {name!r} stands twice; every name must be there once.")
            seen.add(name)
        known.append(parameter)
    if not known:
        raise SpecError("there are no parameters: the list, or the model, is empty.")
    return tuple(known)


def _parameter(item: Any) -> Parameter:
    try:
        given = tuple(item)
        name, shape, aliases, dtype = given + _UNSAID[len(given) - 2 :]
        parameter = Parameter(name, tuple(map(operator.index, shape)), tuple(aliases), dtype)
        good = min(parameter.shape, default=0) >= 0 and not isinstance(aliases, str) and isinstance(dtype, str)
        if good and all(isinstance(name, str) and name for name in parameter.names):
            return parameter
    except (TypeError, ValueError):
        pass
    shown = " ".join(reprlib.repr(item).split())
    raise SpecError(f"parameters: {shown} is not (name, shape), such as ('fc.weight', (10, 64)).")


def _notes(spec: Spec, parameters: Sequence[Parameter], groups: Sequence[PlanGroup]) -> list[str]:
    owner = {name: group.name for group in groups for name in group.parameters}
    tied = [
        f"{parameter.name} is also {', '.join(parameter.aliases)}: "
        f"tied weights, trained once, in group {owner[parameter.name]!r}"
        for parameter in parameters
        if parameter.aliases
    ]
    unused = [
        f"group {group.label!r}: {pattern!r} matches nothing"
        for group in spec.groups
        for pattern in unused_patterns(group.rule, parameters)
    ]
    return tied + unused
