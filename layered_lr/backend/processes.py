"""Several processes that train one model together, as a backend's framework connects them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from layered_lr.data.share import Share
from layered_lr.errors import LayeredLRError

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """Which of several processes this is.

    Args:
        rank: From 0.
        count: How many there are, >= 2.
        local_rank: Its number among those of its machine.
        is_joined: Whether the user's own script has connected them already.
    """

    rank: int
    count: int
    local_rank: int
    is_joined: bool


class Processes(ABC):
    """The processes of a run. Each calls the same methods in the same order.

    Attributes:
        share: Which of them this one is, and how many there are.
    """

    share: Share = Share()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.share.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there is more than one."""
        return self.share.count > 1

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order. Waits for all of them."""

    @abstractmethod
    def from_first(self, value: T) -> T:
        """The first process's value. Waits for it."""

    @abstractmethod
    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The highest of all processes' numbers, place by place: one reduction. Waits for all of them."""

    @abstractmethod
    def close(self) -> None:
        """End what this library has connected."""

    def explain(self, error: Exception) -> LayeredLRError | None:
        """What to raise where an error says that another process has ended; None for any other error."""
        return None

    @contextlib.contextmanager
    def watching(self, advice: str) -> Iterator[None]:
        """Say what to do where another process ends while this one waits for it.

        Args:
            advice: What to do then, as a sentence.

        Raises:
            ProcessLost: Another process has ended.
        """
        try:
            yield
        except Exception as error:
            lost = self.explain(error)
            if lost is None:
                raise
            raise type(lost)(f"{lost} {advice}") from error

    def agree(self, action: Callable[[], T]) -> T:
        """Call a function in each process; where it fails in one, it has failed in all.

        Args:
            action: It must not wait for other processes.

        Raises:
            LayeredLRError: What the function raised in the first process in which it failed. Only there
                ``said_elsewhere`` is false, so that one process says it.
        """
        if not self.are_many:
            return action()
        failed: LayeredLRError | None = None
        made: T | None = None
        try:
            made = action()
        except LayeredLRError as error:
            failed = error
        texts = self.gather(None if failed is None else (type(failed).__name__, str(failed)))
        first = next((rank for rank, text in enumerate(texts) if text is not None), None)
        if first is None:
            return made  # type: ignore[return-value]  # of the action, which has returned
        if failed is None:
            name, text = texts[first] or ("", "")
            failed = _error_of(name)(f"process {first} of {self.share.count}: {text}")
        failed.said_elsewhere = first != self.share.rank
        raise failed

    def agree_first(self, action: Callable[[], T]) -> T | None:
        """Call a function in the first process alone; the others get None, or the error.

        Raises:
            LayeredLRError: What the function raised, in all processes.
        """
        return self.agree(lambda: action() if self.is_first else None)


def _error_of(name: str) -> Callable[[str], LayeredLRError]:
    """The class of an error of this library by its name; those that take more than a text become the base class."""
    found: list[Any] = [LayeredLRError]
    for known in found:
        found += known.__subclasses__()
    return next((each for each in found if each.__name__ == name and "__init__" not in vars(each)), LayeredLRError)


class Alone(Processes):
    """The one process of a run that has no others. Nothing waits, and nothing is imported."""

    def gather(self, value: T) -> list[T]:
        """The value alone."""
        return [value]

    def from_first(self, value: T) -> T:
        """The value."""
        return value

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The numbers."""
        return list(numbers)

    def close(self) -> None:
        """Nothing was connected."""


ALONE = Alone()
"""The process of a run that was started alone."""
