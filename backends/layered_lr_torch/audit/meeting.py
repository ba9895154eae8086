"""An exchange of texts between all ranks of a process group."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

_POLL: Final = 0.02  # seconds
_MOST_RANKS: Final = 4  # in a sentence


class Meeting:
    """One exchange, through the store of the process group.

    Nothing goes through the group's engine: a rank that never comes is missed, and not waited for without end.

    Args:
        rank: This one.
        count: How many there are.
        patience: Seconds to wait for the others.
    """

    held = 0
    """How many have come to their end; all ranks count alike."""

    def __init__(self, rank: int, count: int, patience: float) -> None:
        # Not at the top: a torch that is built without them can audit alone.
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

        self._rank, self._count, self.patience = rank, count, patience
        self._store: Any = PrefixStore(f"layered_lr audit {Meeting.held}", _get_default_store())

    def hold(self, own: str, answer: Callable[[Sequence[str]], str]) -> tuple[str | None, list[int]]:
        """Say what this rank has, and hear the answer.

        Args:
            own: What this rank says; not empty.
            answer: Called in the first rank with what all have said, in their order.

        Returns:
            The answer, the same in all ranks; or None, and the ranks that did not come, as far as it is known.
        """
        self._store.set(str(self._rank), own)
        said, absent = self._lead(answer) if self._rank == 0 else (self._follow(), [])
        if said is None:
            self._store.set(str(self._rank), "")  # it is no longer here
        else:
            Meeting.held += 1
        return said, absent

    def _lead(self, answer: Callable[[Sequence[str]], str]) -> tuple[str | None, list[int]]:
        ranks = [str(rank) for rank in range(self._count)]
        said = self._read(list(self._wait(ranks)))  # again: some may have left
        if absent := [rank for rank in range(self._count) if str(rank) not in said]:
            return None, absent
        text = answer([said[rank] for rank in ranks])
        self._store.set("answer", text)
        return text, []

    def _follow(self) -> str | None:
        found = self._wait(["answer"])
        if not found:
            self._store.set(str(self._rank), "")
            found = self._read(["answer"])  # which may have come just now
        return found.get("answer")

    def _wait(self, keys: Sequence[str]) -> dict[str, str]:
        """What is said under some keys, as far as it comes in time."""
        until, found = time.monotonic() + self.patience, dict[str, str]()
        while True:
            found |= self._read([key for key in keys if key not in found])
            if len(found) == len(keys) or time.monotonic() > until:
                return found
            time.sleep(_POLL)

    def _read(self, keys: Sequence[str]) -> dict[str, str]:
        """What is said under some keys now."""
        there = {key: self._store.get(key).decode() for key in keys if self._store.check([key])}
        return {key: text for key, text in there.items() if text}


def list_ranks(ranks: Sequence[int]) -> str:
    """Some ranks in words.

    Example:
        >>> list_ranks([1]), list_ranks([0, 1, 2, 5, 6, 7])
        ('rank 1', 'ranks 0, 1, 2, 5 and 2 more')
    """
    names = [str(rank) for rank in ranks]
    if len(names) > _MOST_RANKS + 1:
        names = [*names[:_MOST_RANKS], f"{len(names) - _MOST_RANKS} more"]
    return f"rank{'s' * (len(ranks) > 1)} " + " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
