"""What ``scheduler.load_state_dict`` is given in a loop of the user's own: read, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from layered_lr.errors import CheckpointError


class SchedulerState(NamedTuple):
    """Where a scheduler goes on.

    Args:
        step: Updates made so far.
        reactions: What reactive schedules have seen, by group.
    """

    step: int
    reactions: Mapping[str, Mapping[str, float]]


def read_scheduler_state(state: object, name: str) -> SchedulerState:
    """Read what ``scheduler.state_dict()`` has returned.

    Args:
        state: From the user.
        name: Of the count of updates in it: ``"last_epoch"`` as in torch, or ``"last_step"`` as in OneFlow.

    Raises:
        CheckpointError: It is something else.

    Example:
        >>> read_scheduler_state({"last_epoch": 3}, "last_epoch").step
        3
    """
    count = state.get(name) if isinstance(state, Mapping) else None
    reactions: Any = state.get("reactions", {}) if isinstance(state, Mapping) else None
    if type(count) is not int or count < 0 or not _is_table_of_tables(reactions):
        raise CheckpointError(
            f"scheduler.load_state_dict: this is no state of this library's scheduler, which has a whole number >= 0 "
            f"under {name!r}. Give what scheduler.state_dict() has returned."
        )
    return SchedulerState(count, reactions)


def _is_table_of_tables(reactions: object) -> bool:
    return isinstance(reactions, Mapping) and all(isinstance(each, Mapping) for each in reactions.values())
