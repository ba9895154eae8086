"""What a run does when a loss or a gradient is NaN or infinite, and the states that it can go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from layered_lr.errors import TrainingDiverged
from layered_lr.state.training_state import TrainingState

OnDivergence: TypeAlias = Literal["stop", "skip", "rollback"]

MOST_IN_A_ROW = 20
MOST_ROLLBACKS = 10


class Guard:
    """What to do when an update is not finite, and how often that has happened.

    Args:
        policy: ``"stop"`` ends the run; ``"skip"`` undoes the update and goes on with the next batch; ``"rollback"``
            goes back to the last good checkpoint, at lower rates.
        rollback_factor: What each rollback multiplies all rates with.
        skip_advances: Whether a skipped update counts: schedules advance over it.
        rate_factor: What rollbacks before have multiplied the rates with.
        counted: What ``counted`` said before the run was stopped; empty for a new run.
    """

    def __init__(
        self,
        policy: OnDivergence = "stop",
        rollback_factor: float = 0.5,
        skip_advances: bool = False,
        rate_factor: float = 1.0,
        counted: Mapping[str, int] | None = None,
    ) -> None:
        self.policy, self.rollback_factor, self.skip_advances = policy, rollback_factor, skip_advances
        self.rate_factor = rate_factor
        before = counted or {}
        self._rollbacks, self._in_a_row = before.get("rollbacks", 0), before.get("in_a_row", 0)
        self._last = before.get("last", -1)

    @property
    def counted(self) -> dict[str, int]:
        """How often what has happened, as a checkpoint keeps it."""
        return {"rollbacks": self._rollbacks, "in_a_row": self._in_a_row, "last": self._last}

    @property
    def checks_each_update(self) -> bool:
        """Whether every update is looked at before the next one is made."""
        return self.policy != "stop"

    @property
    def skips(self) -> bool:
        """Whether updates are undone."""
        return self.policy == "skip"

    @property
    def rolls_back(self) -> bool:
        """Whether the run goes back."""
        return self.policy == "rollback"

    def count(self, step: int, why: str) -> None:
        """Note an update that went wrong.

        Raises:
            TrainingDiverged: More than 20 skipped updates in a row, or more than 10 rollbacks.
        """
        if self.rolls_back:
            self._rollbacks += 1
            if self._rollbacks > MOST_ROLLBACKS:
                raise TrainingDiverged(f"{why} at step {step}, after {MOST_ROLLBACKS} rollbacks. Try lower rates.")
            return
        self._in_a_row = self._in_a_row + 1 if step in (self._last, self._last + 1) else 1
        self._last = step
        if self._in_a_row > MOST_IN_A_ROW:
            raise TrainingDiverged(f"{why} at step {step}, and {MOST_IN_A_ROW} updates before it were skipped too.")

    def lower_rates(self) -> None:
        """Multiply all rates with the rollback factor."""
        self.rate_factor *= self.rollback_factor


class GoodStates:
    """The states that a run can go back to: the newest two.

    A checkpoint may fall right behind the update that has made the weights too large: where going back to a state did
    not help, the one before it is taken.

    Args:
        states: Those that there are, the newest last.
        back_at: The step of the state that the run last went back to; None if it has never gone back.
    """

    def __init__(self, states: Sequence[TrainingState], back_at: int | None = None) -> None:
        self._states = list(states[-2:])
        self.back_at = back_at

    @property
    def steps(self) -> list[int]:
        """The steps of the states, the newest last."""
        return [state.step for state in self._states]

    def add(self, state: TrainingState) -> None:
        """Keep a newer state, or the newest one once more."""
        older = [kept for kept in self._states if kept.step < state.step]
        self._states = [*older[-1:], state]

    def take_newest(self) -> TrainingState:
        """The state to go back to; the newest one is given up where the run went back to it before."""
        if self._states[-1].step == self.back_at and len(self._states) > 1:
            self._states.pop()
        self.back_at = self._states[-1].step
        return self._states[-1]
