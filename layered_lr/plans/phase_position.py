"""Where a loop of the user's own stands in the phases of its plan, and what reactive schedules have seen so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import (
    LiveRates,
    Metrics,
    Reactions,
    carry_reactions,
    choose_reactions,
    list_reactive,
    observe_ended,
)
from layered_lr.state.training_state import TrainingState


@final
class PhasePosition:
    """The present phase of a plan, and the reactions of this and of earlier phases. It begins in the first phase.

    Attributes:
        live: The rates of the present phase.

    Args:
        plan: With phases.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._index = 0
        self._earlier: dict[str, Mapping[str, float]] = {}
        self.live = LiveRates(plan.phases[0].plan)

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """What reactive schedules of all phases so far have seen, by group."""
        return {**self._earlier, **self.live.state()}

    def check_reactions(self, state: TrainingState) -> None:
        """Refuse a state with reactions of groups whose schedule reacts in no phase.

        Raises:
            CheckpointError: It has such reactions.
        """
        state.check_reactions(list_reactive(self._plan) & set(state.reactions))

    def go_to(self, step: int, reactions: Reactions) -> None:
        """Stand before update ``step``, in its phase, with what reactive schedules have seen."""
        self._earlier = dict(reactions)
        self._enter(self._plan.phase_index(step), choose_reactions(self._plan, step, reactions))

    def follow(self, step: int) -> Iterator[Plan]:
        """Enter each phase up to the one of update ``step``, or go back to it; yield the plan of each one entered."""
        wanted = self._plan.phase_index(step)
        if wanted < self._index:
            self.go_to(step, self.reactions())
            yield self.live.plan
        while self._index < wanted:
            self._earlier |= self.live.state()
            following = self._index + 1
            self._enter(following, carry_reactions(self._plan, following, self._earlier))
            yield self.live.plan

    def observe(self, step: int, metrics: Metrics, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric before update ``step``.

        Where a phase has just ended, the metric is of its last update or epoch, and the next phase's schedules do not
        look at it, as in a run.

        Args:
            step: The next update.
            metrics: As for ``LiveRates.observe``.
            unit: As for ``LiveRates.observe``.

        Raises:
            SpecError: A metric is missing, or is not a number.
        """
        if self._index and step == self._plan.phases[self._index - 1].stop:
            self._earlier = observe_ended(self._plan, self._index, self._earlier, metrics, unit)
            self._enter(self._index, carry_reactions(self._plan, self._index, self._earlier))
        else:
            self.live.observe(metrics, unit)

    def _enter(self, index: int, reactions: Reactions) -> None:
        self._index = index
        self.live = LiveRates(self._plan.phases[index].plan)
        self.live.restore(reactions)
