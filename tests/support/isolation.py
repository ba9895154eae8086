"""Run a function in a Python of its own, where it may abort the process or start with nothing imported."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

# Results go through a file: frameworks write to stdout and stderr as they please.
_SCRIPT = """
import json, os, sys
if hasattr(os, "SCHED_OTHER"):  # where OneFlow is loaded here, every thread and child is under SCHED_BATCH
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
sys.path[:0] = {path!r}
{source}
value = {name}(*json.loads(sys.argv[1]))
with open(sys.argv[2], "w") as file:
    json.dump(value, file)
"""


class Outcome(NamedTuple):
    """How it went.

    Args:
        returncode: 0, or negative where a signal ended it.
        value: What the function returned, None where it did not come to that.
        stderr: All that it wrote there.
    """

    returncode: int
    value: Any
    stderr: str


def run_again_after_crash(
    command: list[str], timeout_seconds: float, cwd: str | None = None, tries: int = 3
) -> subprocess.CompletedProcess[str]:
    """Run a command; run it again, and say so, where OneFlow's own race has ended it with SIGSEGV.

    OneFlow 0.9 pops a queue before it fills it when its thread is pre-empted there (``runtime.schedule_as_batch`` makes
    that rare, no more): on a busy machine about one process in some hundred dies of it, which shows nothing here. Any
    other end, a failed assertion or an abort, is the command's.
    """
    for attempt in range(1, tries + 1):
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, cwd=cwd)
        if done.returncode != -signal.SIGSEGV:
            break
        print(f"a OneFlow process died of SIGSEGV (try {attempt} of {tries})")
    return done


def isolated(function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 600) -> Outcome:
    """Call a function in a fresh Python.

    Args:
        function: At a module's top level, importing all it uses itself.
        arguments: Anything that JSON holds.
        timeout_seconds: After which it is killed, and ``subprocess.TimeoutExpired`` raised.
    """
    path = [str(ROOT), str(ROOT / "backends")]
    source = textwrap.dedent(inspect.getsource(function))
    script = _SCRIPT.format(path=path, source=source, name=function.__name__)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-c", script, json.dumps(arguments), str(answer)]
        done = run_again_after_crash(command, timeout_seconds, cwd=folder)
        value = json.loads(answer.read_text()) if answer.is_file() else None
    return Outcome(done.returncode, value, done.stderr)


def value_of(function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 600) -> Any:
    """What the function returns in a fresh Python; fails with its last words where it does not end well."""
    outcome = isolated(function, *arguments, timeout_seconds=timeout_seconds)
    assert outcome.returncode == 0, f"exit code {outcome.returncode}: {outcome.stderr[-2000:]}"
    return outcome.value
