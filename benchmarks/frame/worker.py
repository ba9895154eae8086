"""An opponent in a process of its own, which works on command and stands still between commands.

    with Worker("benchmarks.opponents.torch_loop:Opponent", {"job": {...}}) as worker:
        answer = worker.call("train", epochs=2)

Between two calls the process is stopped (SIGSTOP): a framework whose idle threads spin disturbs no other opponent.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class WorkerError(Exception):
    """An opponent's process said no, or died."""


class Answer(NamedTuple):
    """What a call gave.

    Args:
        value: What the method returned.
        seconds: How long it took, by the worker's own clock.
    """

    value: Any
    seconds: float


class Worker:
    """A process that holds one opponent.

    Args:
        target: ``package.module:Class``; made with ``settings`` when the worker is opened. A method ``rest`` of it is
            called after each call, not timed.
        settings: Its keyword arguments, as JSON can say them.
        python: The interpreter, such as that of another environment.
        environment: Variables beside this process's own.
        timeout_seconds: After which a call counts as dead.
    """

    def __init__(
        self,
        target: str,
        settings: Mapping[str, Any],
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 900,
    ) -> None:
        self._timeout = timeout_seconds
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        paths = [str(ROOT), str(ROOT / "backends"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.frame.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        )
        try:
            self._ask(settings)
        except WorkerError:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: Any) -> Answer:
        """Call a method of the opponent and wait for it.

        Raises:
            WorkerError: It raised, or the process died.
        """
        found = self._ask({"method": method, "arguments": arguments})
        return Answer(found["value"], found["seconds"])

    def close(self) -> None:
        """End the process."""
        self._signal(signal.SIGCONT)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal(signal.SIGCONT)
        killer = threading.Timer(self._timeout, self._process.kill)
        killer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            killer.cancel()
        if not line:
            raise WorkerError(f"its process died: {self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise WorkerError(found["error"])
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return found

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def _serve(target: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is no answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # else a stopped process would stay for good
    opponent: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            began = time.perf_counter()
            if opponent is None:
                module, _, name = target.partition(":")
                opponent, value = getattr(importlib.import_module(module), name)(**request), None
            else:
                value = getattr(opponent, request["method"])(**request["arguments"])
            found = {"value": value, "seconds": time.perf_counter() - began}
        except Exception as error:
            text = str(error).strip().splitlines()
            found = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        if hasattr(opponent, "rest"):
            opponent.rest()
        answers.write(json.dumps(found) + "\n")
        answers.flush()
    os._exit(0)  # OneFlow 0.9 crashes at times while it is taken down


if __name__ == "__main__":
    _serve(sys.argv[1])
