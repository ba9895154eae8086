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


def isolated(function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 120) -> Outcome:
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
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, cwd=folder)
            if done.returncode != -signal.SIGSEGV:  # else OneFlow's race: see graph_process.run
                break
        value = json.loads(answer.read_text()) if answer.is_file() else None
    return Outcome(done.returncode, value, done.stderr)


def value_of(function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 120) -> Any:
    """What the function returns in a fresh Python; fails with its last words where it does not end well."""
    outcome = isolated(function, *arguments, timeout_seconds=timeout_seconds)
    assert outcome.returncode == 0, f"exit code {outcome.returncode}: {outcome.stderr[-2000:]}"
    return outcome.value
