"""What several tests look at and takes long to make: made once in a test run, whichever of its processes asks first."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """Make something, or read what another process of pytest-xdist has made; meanwhile the others wait.

    Args:
        factory: Of folders for tests.
        name: Like no other's.
        make: Is given a folder of its own, which stays; returns what can be pickled.
    """
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = root / f"{name}.pickle"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder = root / name
            folder.mkdir()
            value = make(folder)
            made.write_bytes(pickle.dumps(value))
    return pickle.loads(made.read_bytes())
