"""Sets for a moment how many threads torch's loops on a CPU use."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let loops that this thread begins run in it alone, if torch can be told so cheaply.

    torch's fused optimizers wake all threads for a tensor of however few numbers, which takes longer than the numbers:
    the 158 parameters of MobileNetV2, one by one, take 0.82 ms where those of up to 8,192 elements are updated by one
    thread, and 0.96 ms by two. ``torch.set_num_threads`` would change the number for the whole process.
    """
    set_threads, count = _find_thread_setter(), torch.get_num_threads()
    if set_threads is None or count == 1:
        yield
        return
    set_threads(1)
    try:
        yield
    finally:
        set_threads(count)


@functools.cache
def _find_thread_setter() -> Callable[[int], None] | None:
    """OpenMP's own function for the calling thread; None if torch does not count its threads by this OpenMP."""
    try:
        set_threads: Callable[[int], None] = ctypes.PyDLL(None).omp_set_num_threads
        count = torch.get_num_threads()
        set_threads(count + 1)
        is_torchs_own = torch.get_num_threads() == count + 1
        set_threads(count)
    except Exception:  # there is no OpenMP, or none that this process can see
        return None
    return set_threads if is_torchs_own and torch.get_num_threads() == count else None
