"""OneFlow's own crashes: how they are told from failures, and that what they hit is run again, never in silence.

OneFlow 0.9 pops a queue before it fills it when its thread is pre-empted there (``runtime.schedule_as_batch`` makes
that rare, no more). On a busy machine about one process in some hundred dies of it, by SIGSEGV or, where the C library
finds the damaged memory first, by SIGABRT. The thread that dies is one of OneFlow's, which Python does not know.

pytest loads this file as a plugin (``tests/conftest.py``): with pytest-xdist, a test that such a crash has ended in the
middle runs again in the process that takes the ended one's place.
"""

from __future__ import annotations

import faulthandler
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

MOST_CRASHES = 2  # of one test or process; the next one is a failure
CRASH_SIGNALS = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}

T = TypeVar("T")


def is_oneflows_own(words: str) -> bool:
    """Whether a process's last words are those of a crash in a thread of OneFlow's.

    Args:
        words: What was written to stderr, by ``faulthandler`` too. That calls the thread that crashed the current one
            if it is one of Python's. Of the extension modules that it names, protobuf's is there wherever OneFlow is
            loaded, and nowhere else. Where OneFlow has found a mistake it says "Check failed", and aborts.
    """
    _, crashed, stacks = words.rpartition("Fatal Python error: ")
    return (
        bool(crashed)
        and stacks.startswith(("Segmentation fault", "Aborted", "Bus error"))
        and "Current thread" not in stacks
        and "google.protobuf" in stacks
        and "Check failed" not in words
    )


def try_again_after_crash(attempt: Callable[[], T], crash_of: Callable[[T], str]) -> T:
    """Attempt something; at most twice more where OneFlow's own crash has ended it, with a warning each time.

    Args:
        attempt: Without arguments.
        crash_of: Says of what it returned which crash that was, and "" where there was none.
    """
    for _ in range(MOST_CRASHES):
        result = attempt()
        if not (crash := crash_of(result)):
            return result
        warnings.warn(f"OneFlow's own crash, run again: {crash}", stacklevel=3)
    return attempt()


_crashes: Counter[str] = Counter()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Made by the process that starts the others, and gone with it."""
    return tempfile.TemporaryDirectory(prefix="last-words-")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each of pytest-xdist's processes where to leave its last words."""
    node.workerinput["last_words"] = str(Path(_folder().name) / node.gateway.id)


@pytest.hookimpl(trylast=True)  # pytest itself sends them to stderr, which is seen and not kept
def pytest_configure(config: pytest.Config) -> None:
    """Leave this process's last words there."""
    if path := getattr(config, "workerinput", {}).get("last_words"):
        faulthandler.enable(Path(path).open("w"))  # noqa: SIM115 - open as long as the process lives


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """Run a test again in which OneFlow's own crash has ended a process; with any other crash, it has failed."""
    path = Path(report.node.workerinput["last_words"])
    words = path.read_text() if path.is_file() else ""
    report.longrepr = f"{report.longrepr}\n{words}"
    if is_oneflows_own(words) and _crashes[crashitem] < MOST_CRASHES:
        _crashes[crashitem] += 1
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """``R`` for a crash whose test runs again."""
    return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the tests that ran again."""
    if _crashes:
        terminalreporter.section("tests that ran again after a crash of OneFlow's own")
        for name, count in sorted(_crashes.items()):
            terminalreporter.line(f"{count} of at most {MOST_CRASHES}: {name}")
