"""How long updates take, and how many updates may be started before the framework has finished the last."""

from __future__ import annotations

import time

_INTERRUPT_SECONDS = 1.0  # how long an interrupt may wait for updates which the framework was asked for
LEAST_AHEAD = 2  # of those: with fewer, the framework would wait for this process at each one


class Stopwatch:
    """Mean time of an update. The time of the first update, which may compile, is kept separately."""

    def __init__(self) -> None:
        self.first_step_seconds = 0.0
        self._seconds = 0.0
        self._timed = self._untimed = 0
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Count from now on: the time before (an evaluation, a checkpoint) belongs to no update."""
        self._began = time.perf_counter()

    def count_update(self) -> None:
        """Note that an update was asked for."""
        self._untimed += 1

    @property
    def knows_first(self) -> bool:
        """Whether the updates after the first one are being timed."""
        return self._timed > 0

    def lap(self) -> None:
        """Count the time since the last lap for the updates since then; they are done."""
        now = time.perf_counter()
        if self.first_step_seconds == 0.0:
            self.first_step_seconds = now - self._began
        else:
            self._seconds += now - self._began
            self._timed += self._untimed
        self._untimed = 0
        self._began = now

    @property
    def seconds_per_step(self) -> float:
        """Mean time of an update, the first one left out where there are more."""
        return self._seconds / self._timed if self._timed else self.first_step_seconds


class Lookahead:
    """How many updates the loop may ask for before it waits for the first of them.

    As many as take a second, so that an interrupt does not wait longer; and no more than the session takes.

    Args:
        step: Updates made before.
    """

    def __init__(self, step: int) -> None:
        self.updates = LEAST_AHEAD
        self._paced = time.perf_counter(), step

    def pace(self, step: int, most: int) -> None:
        """Take the pace since the last call into account.

        Args:
            step: Updates made.
            most: How many the session takes.
        """
        now, (then, before) = time.perf_counter(), self._paced
        self._paced = now, step
        each = max(now - then, 1e-9) / max(step - before, 1)  # a rollback goes back
        self.updates = max(LEAST_AHEAD, min(int(_INTERRUPT_SECONDS / each), most))
