"""The rates during training: the plan's, and those that schedules such as ReduceLROnPlateau have decided so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from layered_lr.errors import ScheduleEnded, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.plans.float32_range import LARGEST
from layered_lr.plans.plan import Plan
from layered_lr.schedules import Reaction
from layered_lr.schedules.reaction import ReactionSettings, read_metric
from layered_lr.schedules.reference import Reference

Reactions: TypeAlias = Mapping[str, Mapping[str, float]]
"""The numbers that each reactive group depends on, by the group's name."""


@dataclass(frozen=True)
class GroupMetrics:
    """The number that each reactive group reads, where all have been found already.

    Args:
        numbers: By the group's name.
    """

    numbers: Mapping[str, float]


Metrics: TypeAlias = float | Mapping[str, float] | GroupMetrics
"""One metric for all reactive schedules, metrics by name, or the number of each group."""


class LiveRates:
    """The rate of each group during training, where reactive schedules may decide some of the rates.

    Args:
        plan: A plan without phases. It has all other rates, and the schedules of the reactive groups.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._reactions: dict[int, Reaction] = {
            index: reaction
            for index, group in enumerate(plan.groups)
            if (reaction := group.schedule.start_reaction(group.lr)) is not None
        }

    @property
    def is_reactive(self) -> bool:
        """Whether any group's rate depends on metrics."""
        return bool(self._reactions)

    def rates(self, step: int) -> list[float]:
        """Return the rates of one update, multiplied by ``lr_scale``, in the order of the plan's groups.

        Behind the end of the run the rates stay as they are at the end: see ``rates_or_last``.

        Raises:
            Unsupported: float32 cannot hold a rate. The frameworks would fail in other ways, or use infinity.
        """
        rates = rates_or_last(self.plan, step)
        for index, reaction in self._reactions.items():
            group = self.plan.groups[index]
            if self.plan.is_frozen(group):
                continue
            clock = self.plan.clock(group, held_step(self.plan, step))
            rates[index] = group.lr_scale * group.schedule(clock, reaction.rate)
        if max(rates, default=0.0) > LARGEST:
            group = self.plan.groups[rates.index(max(rates))]
            raise Unsupported(
                f"group {group.name!r}: the rate {max(rates):g} at step {step} is more than float32 holds "
                f"({LARGEST:g}). Choose a smaller lr or lr_scale."
            )
        return rates

    def observe(self, metrics: Metrics, unit: str | None = None) -> None:
        """Let reactive schedules read a metric; what they decide holds from the next update on.

        Args:
            metrics: A number for all of them, or a mapping of names such as ``loss`` and ``accuracy``, from which each
                takes its own metric. A schedule whose metric is a function gets the whole mapping; groups with one
                function share one call of it. Or what ``read`` has found.
            unit: Only schedules that read a metric each ``"step"``, or each ``"epoch"``; None is all of them.

        Raises:
            SpecError: A metric is missing or no number, or its function raised; a unit is none, or is left out where
                schedules count both.
        """
        numbers = self.read(metrics, unit).numbers  # before the first reacts: a wrong one changes nothing
        for index, reaction in self._looking(unit).items():
            reaction.step(numbers[self.plan.groups[index].name])

    def read(self, metrics: Metrics, unit: str | None = None) -> GroupMetrics:
        """Find the number that each reactive schedule is to look at, and let none of them react.

        Args:
            metrics: As for ``observe``.
            unit: As for ``observe``.

        Raises:
            SpecError: As by ``observe``.
        """
        if unit not in (None, "step", "epoch"):
            raise SpecError(f"observe: unit={unit!r}: must be 'step' or 'epoch', or left out.")
        units = {reaction.settings.unit: self.plan.groups[index].name for index, reaction in self._reactions.items()}
        if unit is None and len(units) > 1:
            raise SpecError(
                f"ReduceLROnPlateau reads the metric of each step in group {units['step']!r}, and of each epoch in "
                f"group {units['epoch']!r}. Say which this one is: scheduler.observe(metric, 'step') or "
                "scheduler.observe(metric, 'epoch')."
            )
        if isinstance(metrics, GroupMetrics):
            return metrics
        answers: dict[object, float] = {}
        return GroupMetrics(
            {
                (name := self.plan.groups[index].name): _choose_metric(reaction.settings, metrics, name, answers)
                for index, reaction in self._looking(unit).items()
            }
        )

    def _looking(self, unit: str | None) -> dict[int, Reaction]:
        """The reactions that look at metrics of a unit."""
        return {
            index: reaction
            for index, reaction in self._reactions.items()
            if unit is None or reaction.settings.unit == unit
        }

    def state(self) -> dict[str, dict[str, float]]:
        """Return the numbers that each reactive group depends on, by the group's name."""
        return {self.plan.groups[index].name: reaction.state() for index, reaction in self._reactions.items()}

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from a result of ``state``.

        Raises:
            SpecError: It has other groups than the plan.
        """
        names = {self.plan.groups[index].name: reaction for index, reaction in self._reactions.items()}
        if set(names) != set(state):
            raise SpecError(f"the state has the reactive groups {sorted(state)}, but the plan has {sorted(names)}.")
        for name, reaction in names.items():
            reaction.restore(state[name])


def held_step(plan: Plan, step: int) -> int:
    """Return the step whose rates hold: behind the end of the run it is the end, where no update was meant to follow.

    Example:
        >>> import layered_lr as ll
        >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1)), [("head.weight", (2, 8))], total_steps=10)
        >>> held_step(plan, 9), held_step(plan, 10), held_step(plan, 25)
        (9, 10, 10)
    """
    return step if plan.total_steps is None else min(step, max(plan.total_steps, 0))


def rates_or_last(plan: Plan, step: int) -> list[float]:
    """Return a plan's rates at one step, or at the step before where no update is meant to follow.

    After the end of the run its last rates stay. A schedule could otherwise rise again there, or start again.

    A scheduler's ``step()`` also comes after the last update of a run. A schedule may have no rate for the step after
    it: a ``Table`` with one value for each update, whether the plan knows the length of the run or not.

    Raises:
        SpecError: A schedule has no rate for the step, and it is not the first one after the end.
    """
    try:
        rates = plan.rates(step)  # also behind the end, so that a Table says that it has ended
        return rates if step == held_step(plan, step) else plan.rates(held_step(plan, step))
    except SpecError as error:
        if step == 0 or not (step == plan.total_steps or isinstance(error, ScheduleEnded)):
            raise
        try:
            return plan.rates(step - 1)
        except ScheduleEnded:
            raise error from None


def list_reactive(plan: Plan) -> set[str]:
    """Return the names of the groups whose schedule reacts to a metric in any phase."""
    return {group.name for there in plan.phase_plans for group in there.groups if group.is_reactive}


def metric_functions(plan: Plan) -> dict[str, Callable[[Mapping[str, float]], float]]:
    """Return the functions of metrics that groups react to, by the group's name; of several phases the last one.

    Args:
        plan: Of a run, with phases or without.
    """
    found = {}
    for group in (group for there in plan.phase_plans for group in there.groups):
        reaction = group.schedule.start_reaction(group.lr)
        if reaction is not None and callable(metric := reaction.settings.metric):
            found[group.name] = metric
    return found


def choose_reactions(plan: Plan, step: int, reactions: Reactions) -> dict[str, dict[str, float]]:
    """Return what the reactive groups of an update's phase go on with.

    Args:
        plan: The plan of the run, with phases.
        step: The update.
        reactions: Those of a state; a group that has none begins.

    Returns:
        A state for ``LiveRates.restore``.
    """
    return _choose_states(plan, plan.phase_index(step), reactions)


def _choose_states(plan: Plan, place: int, reactions: Reactions) -> dict[str, dict[str, float]]:
    new = carry_reactions(plan, place, {})
    return {name: dict(reactions.get(name, start)) for name, start in new.items()}


def observe_ended(
    plan: Plan, place: int, remembered: Reactions, metrics: Metrics, unit: str | None = None
) -> dict[str, Mapping[str, float]]:
    """Let the schedules of a phase that has just ended look at a metric: it is of the phase's last update or epoch.

    Args:
        plan: The plan of the run, with phases.
        place: Index of the phase that starts.
        remembered: The last state of every group that was reactive so far.
        metrics: As for ``LiveRates.observe``.
        unit: As for ``LiveRates.observe``.

    Returns:
        The last states, from which ``carry_reactions`` chooses those of the phase that starts.

    Raises:
        SpecError: A metric is missing, or is not a number.
    """
    ended = LiveRates(plan.phases[place - 1].plan)
    ended.restore(_choose_states(plan, place - 1, remembered))
    ended.observe(metrics, unit)
    return {**remembered, **ended.state()}


def carry_reactions(
    plan: Plan, place: int, remembered: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the state with which each reactive group starts a phase.

    A group continues from its last state if its last reactive schedule was the same one, with the same ``lr`` and
    counted from the same update. Otherwise it starts from the beginning.

    Args:
        plan: The plan of the run, with phases.
        place: Index of the phase that starts.
        remembered: The last state of every group that was reactive so far.

    Returns:
        A state for ``LiveRates.restore``.
    """
    new = plan.phases[place].plan
    states = LiveRates(new).state()
    for column, group in enumerate(new.groups):
        earlier = [phase.plan for phase in plan.phases[:place]]
        old = next((one for one in reversed(earlier) if one.groups[column].is_reactive), None)
        if old is None or group.name not in states or group.name not in remembered:
            continue
        before = old.groups[column]
        if (before.schedule, before.lr, old.since) == (group.schedule, group.lr, new.since):
            states[group.name] = dict(remembered[group.name])
    return states


def read_step_call(given: tuple[object, ...], metrics: Any, is_reactive: bool) -> Any:
    """Return the metric that ``scheduler.step`` is given, by its name or without; None is the next update.

    torch's ``ReduceLROnPlateau`` takes a number without a name for a metric, and torch's other schedulers for an epoch
    to go to. So only a number with a fraction, or numbers by name, are a metric here, and only where a schedule reads
    metrics.

    Args:
        given: The arguments without a name.
        metrics: The argument of that name.
        is_reactive: Whether a schedule reads metrics, in any phase.

    Raises:
        SpecError: It cannot be told what is given.
    """
    if not given:
        return metrics
    if len(given) == 1 and metrics is None and is_reactive and _is_metric(given[0]):
        return given[0]
    shown = ", ".join(map(repr, given))
    raise SpecError(
        f"scheduler.step({shown}): this may be an epoch or a metric; say which. Give a metric for ReduceLROnPlateau by "
        f"its name, step(metrics={shown}), and call step() without it after each update."
    )


def _is_metric(given: object) -> bool:
    """Whether something is a metric and cannot be an epoch: a float, an array or tensor of floats, or a mapping."""
    return isinstance(given, float | Mapping) or "float" in str(getattr(given, "dtype", ""))


def _choose_metric(
    settings: ReactionSettings, metrics: float | Mapping[str, float], group: str, answers: dict[object, float]
) -> float:
    """The number that a group looks at; ``answers`` keeps what functions have answered to these metrics."""
    if not isinstance(metrics, Mapping):
        return read_metric(metrics)
    if callable(settings.metric):
        own = settings.metric if isinstance(settings.metric, Reference) else id(settings.metric)
        if own not in answers:
            answers[own] = read_metric(_ask(settings.metric, metrics, group))
        return answers[own]
    if settings.metric is None or settings.metric not in metrics:
        raise SpecError(
            f"group {group!r} watches the metric {settings.metric!r}, but only these were given: "
            f"{', '.join(map(str, metrics))}."
        )
    return read_metric(metrics[settings.metric])


def _ask(function: Callable[[Mapping[str, float]], float], metrics: Mapping[str, float], group: str) -> float:
    """What a function makes of metrics."""
    try:
        return function(metrics)
    except Exception as error:  # whatever the user's code raises
        name = getattr(function, "__name__", repr(function))
        raise SpecError(
            f"ReduceLROnPlateau(metric={name}) of group {group!r} raised {describe_error(error)}. It was given "
            f"{', '.join(map(str, metrics))}."
        ) from error
