"""A Python that has torch and this library imported already and forks: each child is a process of its own, and starts
in no time.

To import torch, and what its optimizers import when the first one is made, takes 3.5 s of a processor, and this library
0.7 s; the tests start some 200 processes. OneFlow is never imported before the fork: its threads would be missing in
the child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

_SERVER = """
import atexit, contextlib, gc, json, os, sys, threading, types

sys.path[:0] = sys.argv[1:]

with contextlib.suppress(ImportError):  # where torch is not installed the children import the rest by themselves
    import numpy, pydantic, sklearn.datasets
    import torch, torch._dynamo, torchvision

    import layered_lr
    from layered_lr.registry import TABLE, load_attribute

    layered_lr.Spec, layered_lr.run, layered_lr.compile  # each of them imports its modules
    load_attribute(TABLE["torch-eager"].implementation)

gc.collect()
gc.freeze()  # else each child's garbage collection goes through all of it, and so copies its memory

while line := sys.stdin.readline():
    request = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

# The child: as `python -c script arguments` from here on.
for number, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
    place = os.open(name, os.O_WRONLY if number else os.O_RDONLY)
    os.dup2(place, number)
    os.close(place)
os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(request["environment"])
sys.argv = ["-c", *request["arguments"]]
main = sys.modules["__main__"] = types.ModuleType("__main__")
code = 0
try:
    exec(compile(request["script"], "<string>", "exec"), vars(main))
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if not isinstance(end.code, int | None):
        print(end.code, file=sys.stderr)

# Python ends so too. Then it would take down all that was imported, which takes as long as a small test.
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""

_ROOT = Path(__file__).resolve().parents[2]
_PATH = [str(_ROOT), str(_ROOT / "backends")]
# What pytest, torch and OneFlow set by themselves, at times after the server has started; its imports read none of it.
_SET_BY_OTHERS = {
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "GLOG_minloglevel",
    "ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD",
    "CUDA_MODULE_LOADING",
    "MASTER_ADDR",
    "MASTER_PORT",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
}


class WarmPython:
    """A server process that forks one child at a time. It ends with the process that started it."""

    def __init__(self) -> None:
        self._environment = _environment()
        self._server = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", _SERVER, *_PATH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `select` knows nothing of lines that a buffer holds
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End the server."""
        for pipe in (self._server.stdin, self._server.stdout):
            _present(pipe).close()
        self._server.wait()

    def fits(self) -> bool:
        """Whether a child would be as a Python started now: libraries read the environment when they are imported."""
        return self._environment == _environment()

    def lives(self) -> bool:
        """Whether the server can still fork."""
        return self._server.poll() is None

    def run(
        self, script: str, arguments: tuple[str, ...], timeout_seconds: float, cwd: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in a child, as ``subprocess.run([python, "-c", script, *arguments])`` does.

        Raises:
            subprocess.TimeoutExpired: It was killed after ``timeout_seconds``.
        """
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder) / name for name in ("stdout", "stderr")]
            for output in outputs:
                output.touch()
            request = {
                "script": script,
                "arguments": arguments,
                "cwd": cwd or str(Path.cwd()),
                "environment": dict(os.environ),
                "stdout": str(outputs[0]),
                "stderr": str(outputs[1]),
            }
            requests, answers = _present(self._server.stdin), _present(self._server.stdout)
            requests.write(json.dumps(request).encode() + b"\n")
            child = int(answers.readline())
            has_ended = bool(select.select([answers], [], [], timeout_seconds)[0])
            threads = "" if has_ended else end_with_stacks(child)
            returncode = int(answers.readline())
            stdout, stderr = (output.read_text(errors="replace") for output in outputs)
        if not has_ended:
            print(threads, stderr, file=sys.stderr)  # pytest shows it with the failure
            raise subprocess.TimeoutExpired("the child of a warm Python", timeout_seconds, stdout, stderr)
        return subprocess.CompletedProcess(["python", *arguments], returncode, stdout, stderr)


def end_with_stacks(process: int) -> str:
    """End a process that hangs, and say what its threads did; ``faulthandler`` writes their Python stacks to stderr.

    Returns:
        A line a thread: name, state, seconds of a processor, the kernel's function in which it waits.
    """
    lines = []
    for thread in sorted(Path(f"/proc/{process}/task").glob("*")):
        with contextlib.suppress(OSError):
            name, fields = (thread / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            state, times = fields.split()[0], [int(ticks) for ticks in fields.split()[11:13]]
            waits = (thread / "wchan").read_text()
            lines.append(f"{thread.name} {name}: {state}, {sum(times) / os.sysconf('SC_CLK_TCK'):.1f} s, {waits}")
    for number in (signal.SIGABRT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
        time.sleep(0 if number == signal.SIGKILL else 2)  # of a process with many threads the stacks take a while
    return "\n".join(lines)


def _present(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_OTHERS}


_MOST = 3  # servers of a process; each holds some 300 MB
_started: list[WarmPython] = []
_unknown: list[dict[str, str]] = []  # the environment for which there was none, when one was looked for last


def find_warm_python() -> WarmPython | None:
    """A warm Python of this process for its environment; None where the environment has changed just now.

    A test that sets a variable for itself gets none. Where the next look finds the same environment, it is there to
    stay, and gets a server of its own. So does the place of a server that has died.
    """
    _started[:] = [server for server in _started if server.lives()]
    found = next((server for server in _started if server.fits()), None)
    if found is None and (not _started or _environment() in _unknown):
        if len(_started) == _MOST:
            _started.pop(0).close()
        found = WarmPython()
        _started.append(found)
    _unknown[:] = [] if found else [_environment()]
    return found
