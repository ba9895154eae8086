"""How many threads torch's loops on a CPU take, for a moment."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Have loops that this thread begins run in it alone, where torch can be told so cheaply.

    torch's fused optimizers wake all threads for a tensor of however few numbers, which takes longer than the numbers:
    the 158 parameters of MobileNetV2, one by one, take 0.82 ms where those of up to 8,192 elements are updated by one
    thread, and 0.96 ms by two. ``torch.set_num_threads`` would speak for the whole process.
    """
    tell, count = _teller(), torch.get_num_threads()
    if tell is None or count == 1:
        yield
        return
    tell(1)
    try:
        yield
    finally:
        tell(count)


@functools.cache
def _teller() -> Callable[[int], None] | None:
    """OpenMP's own function for the calling thread, if it is the OpenMP that torch counts its threads by."""
    try:
        tell: Callable[[int], None] = ctypes.PyDLL(None).omp_set_num_threads
        count = torch.get_num_threads()
        tell(count + 1)
        is_torchs = torch.get_num_threads() == count + 1
        tell(count)
    except Exception:  # no OpenMP, or none that is seen from here
        return None
    return tell if is_torchs and torch.get_num_threads() == count else None
