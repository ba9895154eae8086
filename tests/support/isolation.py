"""Run a function in a Python of its own, where it may abort the process, or where nothing is imported yet."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.oneflow_crashes import CRASH_SIGNALS, is_oneflows_own, try_again_after_crash
from tests.support.warm_python import end_with_stacks, find_warm_python

ROOT = Path(__file__).resolve().parents[2]

# Results go through a file: frameworks write to stdout and stderr as they please.
_SCRIPT = """
import json, os, sys
if hasattr(os, "SCHED_OTHER"):  # where OneFlow is loaded here, every thread and child is under SCHED_BATCH
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
sys.path[:0] = {path!r}
if os.path.exists(sys.argv[2]):  # of an attempt that OneFlow's own crash has ended
    os.remove(sys.argv[2])
{source}
values = [{name}(*arguments) for arguments in json.loads(sys.argv[1])]
with open(sys.argv[2] + ".part", "w") as file:
    json.dump(values, file)
os.replace(file.name, sys.argv[2])
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


def run_python(
    script: str,
    *arguments: str,
    timeout_seconds: float,
    is_complete: Callable[[str], bool],
    cwd: str | None = None,
    is_fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own; again, with a warning, where OneFlow's own crash has ended it.

    Args:
        script: Its source.
        arguments: Its ``sys.argv[1:]``.
        timeout_seconds: After which it is killed, and ``subprocess.TimeoutExpired`` raised.
        is_complete: Whether the script had said all by then, given its stdout: OneFlow also crashes while a process
            that is at its end takes it down, where Python keeps no last words any more.
        cwd: The folder to run it in.
        is_fresh: Whether nothing may be imported when it begins. Else torch and this library are: the process is the
            child of one that has imported them.
    """
    command = [sys.executable, "-X", "faulthandler", "-c", script, *arguments]

    def attempt() -> subprocess.CompletedProcess[str]:
        if not is_fresh and (warm := find_warm_python()):
            return warm.run(script, arguments, timeout_seconds, cwd)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            print(end_with_stacks(process.pid), process.communicate()[1], file=sys.stderr)
            raise
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def crash_of(done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode not in CRASH_SIGNALS:
            return ""
        name = signal.Signals(-done.returncode).name
        if is_oneflows_own(done.stderr):
            return f"{name} in a thread of OneFlow's"
        return f"{name} at the end of the process" if is_complete(done.stdout) else ""

    return try_again_after_crash(attempt, crash_of)


def isolated(
    function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 600, is_fresh: bool = False
) -> Outcome:
    """Call a function in a Python of its own.

    Args:
        function: At a module's top level, importing all it uses itself.
        arguments: Anything that JSON holds.
        timeout_seconds: After which it is killed, and ``subprocess.TimeoutExpired`` raised.
        is_fresh: Whether nothing may be imported when it begins. Else torch and this library are.
    """
    outcome = _call_each(function, [arguments], timeout_seconds, is_fresh)
    return outcome._replace(value=outcome.value and outcome.value[0])


def _call_each(
    function: Callable[..., Any], calls: Sequence[Sequence[Any]], timeout_seconds: float, is_fresh: bool = False
) -> Outcome:
    path = [str(ROOT), str(ROOT / "backends")]
    source = textwrap.dedent(inspect.getsource(function))
    script = _SCRIPT.format(path=path, source=source, name=function.__name__)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = run_python(
            script,
            json.dumps(calls),
            str(answer),
            timeout_seconds=timeout_seconds,
            is_complete=lambda _: answer.is_file(),
            cwd=folder,
            is_fresh=is_fresh,
        )
        value = json.loads(answer.read_text()) if answer.is_file() else None
    return Outcome(done.returncode, value, done.stderr)


def value_of(
    function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 600, is_fresh: bool = False
) -> Any:
    """What the function returns in a Python of its own; fails with its last words where it does not end well."""
    outcome = isolated(function, *arguments, timeout_seconds=timeout_seconds, is_fresh=is_fresh)
    assert outcome.returncode == 0, f"exit code {outcome.returncode}: {outcome.stderr[-2000:]}"
    return outcome.value


def values_of(
    function: Callable[..., Any], calls: Sequence[Sequence[Any]], *, timeout_seconds: float = 600
) -> list[Any]:
    """What the function returns for each of several lists of arguments, in one Python of its own: a start takes time.

    It fails as ``value_of`` does.
    """
    outcome = _call_each(function, calls, timeout_seconds)
    assert outcome.returncode == 0, f"exit code {outcome.returncode}: {outcome.stderr[-2000:]}"
    return list(outcome.value)


def run_side_by_side(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in several processes at once, which may become a process group of torch.

    They are children of one that has imported torch, as those of ``torch.multiprocessing.spawn`` are not.

    Args:
        count: How many processes.
        function: At a module's top level. It is given the number of its process, from 0 on, and the arguments.
        arguments: Anything that JSON holds.
    """
    value_of(_fork_each, count, f"{function.__module__}:{function.__name__}", arguments)


def _fork_each(count: int, place: str, arguments: list[object]) -> None:
    import torch

    from layered_lr.registry import load_attribute

    torch.multiprocessing.start_processes(load_attribute(place), tuple(arguments), count, start_method="fork")
