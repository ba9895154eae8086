"""Opponents in turn: after a warm-up each takes one round, then each the next, never two at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Taken(Generic[T]):
    """What the rounds gave.

    Args:
        values: Of each opponent, a value for each round.
        failed: Opponents that failed, each with the reason; their rounds are dropped.
    """

    values: dict[str, list[T]]
    failed: dict[str, str]


def alternated(
    opponents: Mapping[str, Callable[[], T]], rounds: int, warm_up: int = 1, say: Callable[[str], None] | None = None
) -> Taken[T]:
    """Measure opponents round by round; who begins changes from round to round.

    Args:
        opponents: Each makes one measurement.
        rounds: Measurements of each.
        warm_up: Rounds before them that do not count.
        say: Told of each round.
    """
    values: dict[str, list[T]] = {name: [] for name in opponents}
    failed: dict[str, str] = {}
    names = list(opponents)
    for number in range(-warm_up, rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if name in failed:
                continue
            try:
                value = opponents[name]()
            except Exception as error:  # an opponent that breaks is a row that says why
                failed[name] = one_line(error)
                continue
            if number >= 0:
                values[name].append(value)
            if say:
                say(f"round {number + 1} of {rounds}, {name}: {value}" if number >= 0 else f"warm-up, {name}")
    return Taken({name: taken for name, taken in values.items() if name not in failed}, failed)


def one_line(error: Exception) -> str:
    """The first line of what an error says, with its kind where that says more."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
