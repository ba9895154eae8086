"""Starts one process for each backend, watches it, and ends it with its children when this process ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from layered_lr import errors
from layered_lr.errors import BackendUnavailable, LayeredLRError
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.packing import packed
from layered_lr.parity.worker import REFUSED, Request
from layered_lr.training.signals import Stop

# `python -m` and `-c` both look into the current folder first: a stranger's folder would run its own modules.
_PROGRAM = """
import sys
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]
from layered_lr.parity.worker import main
main()
"""
_LAST_LINES = 6
_WAIT_SECONDS = 0.2
_GRACE_SECONDS = 5


def run_worker(request: Request, advanced: Callable[[int], object]) -> Outcome:
    """Let a worker do what is asked; whatever it does, this process goes on.

    Args:
        request: Its ``pipe`` is set here.
        advanced: Called with the number of updates since it was last called.

    Raises:
        SpecError: The request holds a function that another process cannot import.
    """
    request.folder.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    file, log = request.folder / f"{request.role}.request", request.folder / f"{request.role}.log"
    try:
        file.write_bytes(packed(request._replace(pipe=writer), "compare"))
        with _process(file, log, writer) as process:
            os.close(writer)
            writer = -1
            _watch(process, reader, advanced)
            code = process.wait()
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if code == 0:
        return Outcome(request.backend, "ran")
    if code == REFUSED and (refusal := request.folder / "refusal.json").exists():
        return _refused(request.backend, json.loads(refusal.read_text()))
    return Outcome(request.backend, "died", _last_words(log), code)


@contextlib.contextmanager
def _process(request: Path, log: Path, pipe: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a session of its own, so that Ctrl-C reaches this process first; it ends with this block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())}
    command = [sys.executable, "-c", _PROGRAM, str(request)]
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as output, Stop() as signals:  # else one that comes now would leave the worker behind
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[pipe],
                start_new_session=True,
            )
        signals.obey()
        yield process
    finally:
        if process is not None:
            _end(process)


def _search_path() -> list[str]:
    """Where this process looks for modules; the current folder comes last where it stands there only as such."""
    last = [str(Path.cwd())] if "" in sys.path else []
    return [str(Path(path).absolute()) for path in sys.path if path] + last


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def _watch(process: subprocess.Popen[bytes], reader: int, advanced: Callable[[int], object]) -> None:
    """Pass progress on until the worker has ended; its own children may keep the pipe open."""
    while True:
        ended = process.poll() is not None
        ready, _, _ = select.select([reader], [], [], 0 if ended else _WAIT_SECONDS)
        if ready and (ticks := os.read(reader, 4096)):
            advanced(len(ticks))
        elif ended:
            return
        elif ready:  # the other end is closed: what is left is the worker's end
            process.wait()


def _refused(backend: str, said: dict[str, Any]) -> Outcome:
    kind = getattr(errors, said["type"])
    error: LayeredLRError = kind(*said["arguments"]) if "arguments" in said else kind(said["message"])
    if isinstance(error, BackendUnavailable):
        return Outcome(backend, "unavailable", str(error), error=error)
    return Outcome(backend, "refused", str(error), error=error)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_LAST_LINES:])
