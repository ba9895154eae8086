"""Rates while training: the plan's, and those that reactive schedules have decided so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layered_lr.errors import SpecError, Unsupported
from layered_lr.plans.plan import Plan
from layered_lr.schedules import Reaction
from layered_lr.schedules.reaction import ReactionSettings

LARGEST = (2 - 2**-23) * 2.0**127  # of float32


class LiveRates:
    """What each group's rate is now, where some rates are decided while training.

    Args:
        plan: Every other rate, and the reactive groups' schedules; without phases.
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
        """The rates of one update, ``lr_scale`` multiplied, in the order of the plan's groups.

        After the last update of the plan they stay where a schedule has none for the next, as a ``Table`` of just so
        many values: a scheduler's ``step()`` belongs behind that update too.

        Raises:
            Unsupported: A rate that float32 cannot hold: frameworks end in errors of their own, or in infinity.
        """
        try:
            rates = self.plan.rates(step)
        except SpecError:
            if step == 0 or step != self.plan.total_steps:
                raise
            rates = self.plan.rates(step - 1)
        for index, reaction in self._reactions.items():
            group = self.plan.groups[index]
            if self.plan.is_frozen(group):
                continue
            rates[index] = group.lr_scale * group.schedule(self.plan.clock(group, step), reaction.rate)
        if max(rates, default=0.0) > LARGEST:
            group = self.plan.groups[rates.index(max(rates))]
            raise Unsupported(
                f"group {group.name!r}: the rate {max(rates):g} at step {step} is more than float32 holds "
                f"({LARGEST:g}). Choose a smaller lr or lr_scale."
            )
        return rates

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric; what they decide holds from the next update on.

        Args:
            metrics: A number for all of them, or a mapping of names such as ``loss`` and ``accuracy``, from which
                each takes its own (a schedule whose metric is a function is given the whole mapping).
            unit: Only those that look at each ``"step"``, or at each ``"epoch"``; None is all of them.

        Raises:
            SpecError: A metric that is missing or no number.
        """
        for index, reaction in self._reactions.items():
            if unit is None or reaction.settings.unit == unit:
                reaction.step(_choose_metric(reaction.settings, metrics, self.plan.groups[index].name))

    def state(self) -> dict[str, dict[str, float]]:
        """What reactive schedules have seen and decided, by group."""
        return {self.plan.groups[index].name: reaction.state() for index, reaction in self._reactions.items()}

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from a saved state.

        Raises:
            SpecError: It is of other groups.
        """
        names = {self.plan.groups[index].name: reaction for index, reaction in self._reactions.items()}
        if set(names) != set(state):
            raise SpecError(f"the state is of reactive groups {sorted(state)}, the plan's are {sorted(names)}.")
        for name, reaction in names.items():
            reaction.restore(state[name])


def carry_reactions(
    plan: Plan, place: int, remembered: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """What each reactive group of a phase goes on from, in the form of ``LiveRates.state``.

    A schedule goes on where its group had the same one, counted from the same update, when it last reacted; else it
    begins anew.

    Args:
        plan: With phases.
        place: Which one.
        remembered: What schedules have seen so far, by group.
    """
    there = plan.phases[place].plan
    found = LiveRates(there).state()
    for column, group in enumerate(there.groups):
        earlier = [phase.plan for phase in plan.phases[:place]]
        last = next((stretch for stretch in reversed(earlier) if stretch.groups[column].is_reactive), None)
        if last is None or group.name not in found or group.name not in remembered:
            continue
        was = last.groups[column]
        if (was.schedule, was.lr, last.since) == (group.schedule, group.lr, there.since):
            found[group.name] = dict(remembered[group.name])
    return found


def _choose_metric(settings: ReactionSettings, metrics: Any, group: str) -> float:
    if not isinstance(metrics, Mapping):
        return metrics  # type: ignore[no-any-return] # the reaction says what is wrong with it
    if callable(settings.metric):
        return settings.metric(metrics)
    if settings.metric not in metrics:
        raise SpecError(
            f"group {group!r} watches the metric {settings.metric!r}; given were {', '.join(map(str, metrics))}."
        )
    return metrics[settings.metric]  # type: ignore[no-any-return]
