"""OneFlow, imported in the one way that is safe: every module of this package takes ``flow`` from here."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path


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


schedule_as_batch()
os.environ.setdefault("GLOG_minloglevel", "3")  # its C++ log: fatal only
with _quiet_stderr():  # 'libibverbs not available' goes past every setting
    import oneflow as flow

warnings.filterwarnings("ignore", "ReLU6 module do not support inplace", UserWarning)  # it is right all the same

__all__ = ["flow", "schedule_as_batch"]
