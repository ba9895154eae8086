"""Processes that are told what to do at the same moment, connected with each other or not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.frame.worker import Worker

_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # each has a core at most, so that one and two processes can be compared


class Ranks:
    """Processes of ``benchmarks.many_processes.trainee``, which stand still between calls.

    Args:
        count: How many.
        connected: Whether they are one process group, which trains one model; else each trains one of its own.
    """

    def __init__(self, count: int, connected: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory()
        store = str(Path(self._folder.name) / "store") if connected and count > 1 else ""

        def start(rank: int) -> Worker:
            settings = {"rank": rank, "count": count, "store": store}
            return Worker("benchmarks.many_processes.trainee:Trainee", settings, environment=_ONE_THREAD)

        self._pool = ThreadPoolExecutor(count)
        self._workers: list[Worker] = []
        try:
            self._workers += self._at_once(partial(start, rank) for rank in range(count))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: Any) -> list[Any]:
        """Call a method in all of them at once; what it returned in each.

        Raises:
            WorkerError: It raised in one, or one died.
        """
        return self._at_once(partial(_value, worker, method, arguments) for worker in self._workers)

    def close(self) -> None:
        """End the processes."""
        self._at_once(worker.close for worker in self._workers)
        self._pool.shutdown()
        self._folder.cleanup()

    def _at_once(self, calls: Iterable[Callable[[], Any]]) -> list[Any]:
        return [future.result() for future in [self._pool.submit(call) for call in calls]]


def _value(worker: Worker, method: str, arguments: Mapping[str, Any]) -> Any:
    return worker.call(method, **arguments).value
