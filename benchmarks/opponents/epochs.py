"""The time of an epoch, seen from outside and the same way for everybody.

A round is two calls of an opponent, each of which trains from new weights on: an epoch, and one step. Set-up,
compiling and one evaluation are in both, and their difference is the epoch's time. Before the rounds each makes the
call of one step twice, so that imports and caches are in none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks.frame.command import say
from benchmarks.frame.report import Series
from benchmarks.frame.rounds import alternated, one_line
from benchmarks.frame.worker import Worker, WorkerError


class Entrant(NamedTuple):
    """An opponent and where it runs.

    Args:
        target: ``package.module:Class`` with a method ``train(epochs, one_batch)``.
        settings: Of the class, as JSON can say them.
        python: Another environment's interpreter; empty is this one.
        environment: Variables.
        note: For its row.
    """

    target: str
    settings: Mapping[str, Any]
    python: str = ""
    environment: Mapping[str, str] | None = None
    note: str = ""


def epoch_seconds(worker: Worker, epochs: int, steps_per_epoch: int) -> float:
    """Of one round: the time of a step over many of them, times the steps of an epoch."""
    one = worker.call("train", epochs=1, one_batch=True).seconds
    many = worker.call("train", epochs=epochs).seconds
    return (many - one) / max(epochs * steps_per_epoch - 1, 1) * steps_per_epoch


def race(
    entrants: Mapping[str, Entrant], rounds: int, steps_per_epoch: int, epochs: int = 1, warm: bool = True
) -> tuple[dict[str, Series], dict[str, str]]:
    """Let opponents take turns, each in a process of its own that stands still while another trains.

    Args:
        entrants: By name.
        rounds: Of each.
        steps_per_epoch: Of their job.
        epochs: In a round.
        warm: Whether they warm up.

    Returns:
        The time of an epoch of each, and those that failed with the reason.
    """
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        turns: dict[str, Callable[[], float]] = {}
        for name, entrant in entrants.items():
            try:
                worker = stack.enter_context(
                    Worker(
                        entrant.target,
                        entrant.settings,
                        entrant.python or sys.executable,
                        entrant.environment,
                    )
                )
                if warm:
                    say(f"warm-up, {name}")
                    for _ in range(2):
                        worker.call("train", epochs=1, one_batch=True)
            except (WorkerError, OSError) as error:
                missing[name] = one_line(error).removeprefix("WorkerError: ")
                continue
            turns[name] = lambda worker=worker: epoch_seconds(worker, epochs, steps_per_epoch)  # type: ignore[misc]
        taken = alternated(turns, rounds, warm_up=0, say=say)
    missing |= {name: reason.removeprefix("WorkerError: ") for name, reason in taken.failed.items()}
    found = {
        name: Series(name, "time of an epoch", "s", tuple(values), note=entrants[name].note)
        for name, values in taken.values.items()
    }
    return found, missing
