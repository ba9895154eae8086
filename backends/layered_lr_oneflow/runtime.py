"""Imports OneFlow in the one way that is safe: every module of this package takes ``flow`` from here."""

from __future__ import annotations

import contextlib
import functools
import gc
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
    """Put every present and later thread of this process under SCHED_BATCH.

    OneFlow 0.9 pushes a graph's job before it enqueues it. If the thread is pre-empted in between, another one pops an
    empty queue, and the process dies of SIGSEGV (14 of 24 busy runs; none of 60 under SCHED_BATCH, which pre-empts
    threads less often). Threads inherit the policy, so it is best set before OneFlow starts its own.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread is gone, or a sandbox forbids it
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_OTHER:
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


class _SigintReclaimer(importlib.abc.MetaPathFinder):
    """An import hook that finds no module. At each import it makes ``handler`` the handler of SIGINT again."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self.handler = handler

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> None:
        """Take SIGINT back; the first import after OneFlow's extension module undoes what that module did."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.handler)


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back during an import; after it, Python handles Ctrl-C as before.

    OneFlow 0.9's extension module installs a handler of its own below Python's. It ends the process with exit code 255
    or a crash, without a ``KeyboardInterrupt``, so nothing could be saved. And a ``KeyboardInterrupt`` in the middle of
    the import can leave the process hanging.
    """
    original = signal.getsignal(signal.SIGINT)
    if original is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    # Threads that OneFlow starts meanwhile inherit the mask; the reclaimer is for threads that are there already.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if hasattr(signal, "pthread_sigmask") else None
    reclaim = _SigintReclaimer(lambda number, frame: held.append((number, frame)))
    signal.signal(signal.SIGINT, reclaim.handler)
    sys.meta_path.insert(0, reclaim)
    try:
        yield
    finally:
        sys.meta_path.remove(reclaim)
        signal.signal(signal.SIGINT, reclaim.handler)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that has waited is held
        signal.signal(signal.SIGINT, original)
    if held and callable(original):
        original(*held[0])


@contextlib.contextmanager
def _hold_stderr() -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2; show it after all if an error follows."""
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


def choose_blas_kernels(cpuinfo: str) -> str | None:
    """Choose the fastest kernels of OneFlow 0.9's OpenBLAS that a CPU can run.

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``.

    Returns:
        Their name for ``OPENBLAS_CORETYPE``; None if the CPU's flags say nothing: then OpenBLAS chooses.
    """
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    flags = set(line.split())
    return next((kernels for kernels, needed in _BLAS_KERNELS if needed <= flags), None)


@contextlib.contextmanager
def _use_fast_blas_kernels() -> Iterator[None]:
    """Let OpenBLAS use what the CPU can do.

    OneFlow 0.9 contains an OpenBLAS of 2020, which takes newer AMD CPUs for a Barcelona of 2007 and multiplies matrices
    with kernels half as fast. The order of sums differs between kernels, so results differ in the last bits, as they do
    between machines. A value that the user has set stays. OpenBLAS reads the variable at the import; it is removed
    after that, so that other libraries and processes choose for themselves.
    """
    name, cpuinfo = "OPENBLAS_CORETYPE", Path("/proc/cpuinfo")
    kernels = choose_blas_kernels(cpuinfo.read_text()) if name not in os.environ and cpuinfo.exists() else None
    if kernels is None:
        yield
        return
    os.environ[name] = kernels
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _compute_where_it_is_scheduled() -> None:
    """Let OneFlow compute an operation in the thread that schedules it, on a machine without an NVIDIA GPU.

    By default OneFlow 0.9 hands each operation to a second thread, and the first one turns in a loop until the second
    has ended. An eager step keeps two processors busy, and one works: MobileNetV2 with 32 images takes 0.20 s either
    way, and 0.40 s of processor time by default, 0.22 s so (2 cores, medians of three runs; the same weights to the
    bit). On a GPU the second thread starts kernels while the first goes on, so nothing changes there.

    The threads of OneFlow read the variable at different times. It is therefore set before OneFlow is imported, or not
    at all. A value that the user has set stays.
    """
    if "oneflow" not in sys.modules and not Path("/dev/nvidiactl").exists():
        os.environ.setdefault("ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD", "0")


schedule_as_batch()
_compute_where_it_is_scheduled()
os.environ.setdefault("GLOG_minloglevel", "3")  # its C++ log: fatal only
with hold_interrupts(), _hold_stderr(), _use_fast_blas_kernels():  # no setting stops 'libibverbs not available'
    import oneflow as flow


def _with_frozen_weight(convolve: Callable[..., Any]) -> Callable[..., Any]:
    """Let gradients pass a transposed convolution whose weight is frozen: there OneFlow 0.9 aborts the process.

    The operator gets a tensor with the same numbers in its place, whose gradient is computed and dropped.
    """

    @functools.wraps(convolve)
    def pass_through(x: Any, weight: Any, *others: Any, **more: Any) -> Any:
        if x.requires_grad and not weight.requires_grad:
            weight = weight.detach().requires_grad_(True)
        return convolve(x, weight, *others, **more)

    return pass_through


for _name in ("deconv1d", "deconv2d", "deconv3d"):  # OneFlow's own modules call them by these names
    setattr(flow._C, _name, _with_frozen_weight(getattr(flow._C, _name)))


class _Forgetting(flow.nn.Graph):
    """Compiled once, it makes OneFlow forget the names of tensors that the graph before it had."""

    def build(self, x: Any) -> Any:
        return x + 1


def _forget_failed_build(build: Callable[..., Any]) -> Callable[..., Any]:
    """Let a graph be built after one that failed: there OneFlow 0.9 aborts the process.

    It holds the names of a graph's tensors until the next graph is compiled, and takes a constant that the failed graph
    had for one of the new graph's. Parameters hold gradients of the failed graph, too.
    """

    @functools.wraps(build)
    def build_or_forget(graph: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(graph, *args, **kwargs)
        except BaseException:
            if not isinstance(graph, _Forgetting) and flow.env.get_world_size() == 1:
                for tensor in (state.to(flow.Tensor) for state in graph._state()):
                    if tensor.grad is not None and tensor.grad.is_lazy:
                        tensor.grad = None
                _Forgetting()._compile(flow.zeros(1))
            raise

    return build_or_forget


flow.nn.Graph.build_graph = _forget_failed_build(flow.nn.Graph.build_graph)

_KEPT: list[object] = []  # in a forked child: what graphs of its parent held


def _keep_graphs_of_parent() -> None:
    """Let no graph end in a forked child (a worker of a data loader, a pool).

    A graph that ends waits for OneFlow's threads. A child has none of them, and would hang: in a garbage collection at
    any time, or where it drops a variable.
    """
    gc.freeze()
    flow.nn.Graph.__del__ = lambda graph: _KEPT.append(dict(vars(graph)))


os.register_at_fork(after_in_child=_keep_graphs_of_parent)

warnings.filterwarnings("ignore", "ReLU6 module do not support inplace", UserWarning)  # the result is right

__all__ = ["flow", "schedule_as_batch"]
