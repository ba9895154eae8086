"""A run that is stopped on purpose, to go on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.training.run_log import RunLog


class StopAfter(ll.Callback):
    """Stops a run after some updates.

    Args:
        step: How many.
        why: What the run says.
    """

    def __init__(self, step: int, why: str = "enough") -> None:
        self.step, self.why = step, why

    def on_update(self, event: Any) -> None:
        if event.step + 1 == self.step:
            event.run.stop(self.why)


def stopped(monkeypatch: pytest.MonkeyPatch, folder: Path, spec: ll.Spec, after: int, **said: Any) -> None:
    """A run that gets SIGTERM after some updates."""
    with sigterm_after(monkeypatch, after):
        ll.run(spec, **said, checkpoints=folder)


@contextlib.contextmanager
def sigterm_after(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """The run that begins or goes on here gets SIGTERM after some updates, as a cluster's scheduler sends it."""

    def is_due(self: RunLog, step: int, steps_per_epoch: int) -> bool:
        if step == after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(RunLog, "is_due", is_due)
        with pytest.raises(SystemExit) as end:
            yield
    assert end.value.code == 143
