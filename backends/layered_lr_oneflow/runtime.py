"""OneFlow, imported in the one way that is safe: every module of this package takes ``flow`` from here."""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any


def schedule_as_batch() -> None:
    """Put every thread of this process, and those to come, under SCHED_BATCH.

    OneFlow 0.9 pushes a graph's job before it enqueues it; a thread pre-empted in between pops an empty queue
    and the process dies of SIGSEGV (14 of 24 busy runs; none of 60 under SCHED_BATCH, where threads are
    pre-empted less). Threads inherit the policy, so it is best set before OneFlow starts its own.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread is gone, or a sandbox forbids it
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_OTHER:
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


class _Reclaim(importlib.abc.MetaPathFinder):
    """Finds no module; whenever Python looks for one, it makes ``handler`` the handler of SIGINT again."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self.handler = handler

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
        """Called for every import; the next one after OneFlow's extension module undoes what that did."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.handler)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for the time of an import, and leave it to Python.

    OneFlow 0.9's extension module puts a handler of its own under Python's, which ends the process with exit
    code 255 or a crash, without a ``KeyboardInterrupt``: nothing could be saved. And a ``KeyboardInterrupt`` in
    the middle of its import can leave the process hanging.
    """
    original = signal.getsignal(signal.SIGINT)
    if original is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    reclaim = _Reclaim(lambda number, frame: held.append((number, frame)))
    signal.signal(signal.SIGINT, reclaim.handler)
    sys.meta_path.insert(0, reclaim)
    try:
        yield
    finally:
        sys.meta_path.remove(reclaim)
        signal.signal(signal.SIGINT, original)
    if held and callable(original):
        original(*held[0])


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2, and show it after all where an error comes of it."""
    try:
        original = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


_BLAS_KERNELS = (("SkylakeX", {"avx512f", "avx512dq", "avx512bw", "avx512vl"}), ("Haswell", {"avx2", "fma"}))


def blas_kernels(cpuinfo: str) -> str | None:
    """The fastest kernels of OneFlow 0.9's OpenBLAS that a CPU can run, as ``OPENBLAS_CORETYPE`` names them.

    Args:
        cpuinfo: What ``/proc/cpuinfo`` says.

    Returns:
        None where the CPU's flags say nothing: then OpenBLAS chooses.
    """
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    flags = set(line.split())
    return next((kernels for kernels, needed in _BLAS_KERNELS if needed <= flags), None)


@contextlib.contextmanager
def _blas_kernels_chosen() -> Iterator[None]:
    """Have OpenBLAS use what the CPU can do.

    OneFlow 0.9 has one of 2020, which takes AMD's CPUs since then for a Barcelona of 2007, and multiplies matrices with
    kernels half as fast. The order of sums differs between kernels, and so do results in the last bits; as they do
    between machines. A value that the user has set stays. The variable goes again afterwards: it is read at the
    import, and other libraries and processes shall choose for themselves.
    """
    name, cpuinfo = "OPENBLAS_CORETYPE", Path("/proc/cpuinfo")
    kernels = blas_kernels(cpuinfo.read_text()) if name not in os.environ and cpuinfo.exists() else None
    if kernels is None:
        yield
        return
    os.environ[name] = kernels
    try:
        yield
    finally:
        os.environ.pop(name, None)


schedule_as_batch()
os.environ.setdefault("GLOG_minloglevel", "3")  # its C++ log: fatal only
with interrupts_held(), _quiet_stderr(), _blas_kernels_chosen():  # 'libibverbs not available' goes past every setting
    import oneflow as flow

warnings.filterwarnings("ignore", "ReLU6 module do not support inplace", UserWarning)  # it is right all the same

__all__ = ["flow", "schedule_as_batch"]
