"""Says which process the others wait for, where one is stopped, or is much slower than they are."""

from __future__ import annotations

import threading
from typing import Any, Final

from layered_lr.console import say
from layered_lr.data.share import Share

PERIOD: Final = 15.0
"""Seconds between two looks."""
PATIENCE: Final = 4
"""Looks without a change after which it is said."""
_ABSENT: Final = (-1, -1)
"""The sign of a process that has given none."""


class SilentProcesses:
    """A thread that writes a sign of life into the store of the process group, now and then.

    The first process looks at the signs of all, and the second one at that of the first: what there is to do for each
    does not grow with their number, and no update waits for it.

    Args:
        share: Which process this is.

    Attributes:
        calls: How often this process has come to where it may wait for the others. It may be counted up at any time.
    """

    def __init__(self, share: Share) -> None:
        # Not at the top: a torch that is built without them can train alone.
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

        self.calls = 0
        self._share, self._looks = share, 0
        self._watched = {0: range(1, share.count), 1: range(1)}.get(share.rank, range(0))
        self._signs: dict[int, tuple[int, int]] = {}
        self._unchanged: dict[int, int] = {}
        self._calls_before, self._waited, self._has_said = 0, 0, False
        self._is_over = threading.Event()
        try:
            self._store: Any = PrefixStore("layered_lr signs of life", _get_default_store())
        except (RuntimeError, TypeError, ValueError):  # the user's process group has none
            return
        threading.Thread(target=self._work, name="layered_lr: silent processes", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()

    def _work(self) -> None:
        while not self._is_over.wait(PERIOD):
            alarm = threading.Timer(PERIOD * PATIENCE, self._name_store)
            alarm.daemon = True
            if self._watched:  # the store may be in the process that is stopped
                alarm.start()
            try:
                self._look()
            except Exception:  # the store has ended with its process: the run's next call raises
                return
            finally:
                alarm.cancel()

    def _look(self) -> None:
        """Give a sign, and look at those of others."""
        self._looks += 1
        calls = self.calls
        self._store.set(str(self._share.rank), f"{calls} {self._looks}")
        if calls == self._calls_before:
            self._waited += 1
        else:
            self._calls_before, self._waited, self._has_said = calls, 0, False
        late = [rank for rank in self._watched if self._is_late(rank, calls)]
        if late and self._waited >= PATIENCE and not self._has_said and not self._is_over.is_set():
            self._has_said = True
            self._name(late)

    def _is_late(self, rank: int, calls: int) -> bool:
        """Whether a process gives no more signs, or has been behind this one for some time."""
        theirs, looks = _ABSENT
        if self._store.check([str(rank)]):
            theirs, looks = map(int, self._store.get(str(rank)).split())
        before = self._signs.get(rank)
        self._signs[rank] = (theirs, looks)
        is_behind = theirs < calls
        if before is not None and (before == (theirs, looks) or (is_behind and before[0] == theirs)):
            self._unchanged[rank] = self._unchanged.get(rank, 0) + 1
        else:
            self._unchanged[rank] = 0
        return self._unchanged[rank] >= PATIENCE

    def _name(self, late: list[int]) -> None:
        names = ", ".join(map(str, late[:5])) + (f" and {len(late) - 5} more" if len(late) > 5 else "")
        several, seconds = len(late) > 1, f"{PERIOD * PATIENCE:g} seconds"
        who = f"waiting for process{'es' * several} {names} of {self._share.count}, which "
        who += "have not" if several else "has not"
        if all(self._signs[rank] == _ABSENT for rank in late):
            self._speak(f"{who} come to this run within {seconds}. All processes of the group must call it.")
        else:
            goes_on = "they do" if several else "it does"
            self._speak(f"{who} gone on for {seconds}: slow, stopped, or cut off. The run goes on when {goes_on}.")

    def _name_store(self) -> None:
        self._speak(
            "waiting for the process that holds the store of the process group (process 0, or torchrun), which has not "
            f"answered for {PERIOD * PATIENCE:g} seconds: stopped, or cut off. The run goes on when it does."
        )

    def _speak(self, words: str) -> None:
        say(words, always=True)
