"""The process that the others wait for is named, whichever it is, and nothing is said of one that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from layered_lr.data.share import Share

LIMIT = 20.0  # seconds


@pytest.fixture
def begin(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    from torch.distributed import distributed_c10d

    from layered_lr_torch import silent_processes

    store = torch.distributed.HashStore()
    monkeypatch.setattr(silent_processes, "PERIOD", 0.05)
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: store)
    begun: list[Any] = []

    def make(rank: int, count: int, calls: int = 0, delay: float = 0) -> Any:
        found = silent_processes.SilentProcesses(Share(rank, count))
        found.calls = calls
        if delay:
            found._store = SlowStore(found._store, delay)
        begun.append(found)
        return found

    yield make
    for each in begun:
        each.close()


class SlowStore:
    """A store that answers late."""

    def __init__(self, inner: Any, delay: float) -> None:
        self.inner, self.delay = inner, delay

    def set(self, key: str, value: str) -> None:
        time.sleep(self.delay)
        self.inner.set(key, value)

    def check(self, keys: list[str]) -> bool:
        return bool(self.inner.check(keys))

    def get(self, key: str) -> bytes:
        return bytes(self.inner.get(key))


def heard(capsys: pytest.CaptureFixture[str]) -> str:
    """What is said, as soon as something is."""
    until, text = time.monotonic() + LIMIT, ""
    while not text and time.monotonic() < until:
        time.sleep(0.02)
        text = capsys.readouterr().err
    return text


def test_processes_that_never_come_are_named(begin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begin(0, 8)
    text = heard(capsys)
    assert "waiting for processes 1, 2, 3, 4, 5 and 2 more of 8, which have not come to this run within" in text
    assert text.count("waiting") == 1 and "All processes of the group must call it." in text


def test_one_that_is_behind_is_named(begin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begin(1, 2, calls=4)
    first = begin(0, 2, calls=5)
    assert "waiting for process 1 of 2, which has not gone on for" in heard(capsys)
    first.calls += 1  # it goes on, and waits again
    assert "waiting for process 1 of 2" in heard(capsys)


def test_the_second_one_names_the_first(begin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begin(0, 3, calls=7).close()  # as if it was stopped
    begin(2, 3, calls=8)
    begin(1, 3, calls=7)
    text = heard(capsys)
    assert "waiting for process 0 of 3" in text and text.count("waiting") == 1


def test_nothing_is_said_where_all_go_on_or_compute(begin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in range(3):
        begin(rank, 3, calls=9)  # equally far: in a long evaluation, say
    time.sleep(0.5)
    assert capsys.readouterr().err == ""


def test_a_store_that_does_not_answer_is_named(begin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begin(1, 2, delay=1.0)
    assert "waiting for the process that holds the store of the process group" in heard(capsys)


def test_a_group_without_a_store_is_no_error(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import distributed_c10d

    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: None)
    begin(0, 2).close()
