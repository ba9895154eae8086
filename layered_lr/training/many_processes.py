"""Refuses to run in one of several processes that a launcher has started: each would train the whole run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from layered_lr.errors import Unsupported

_COUNTS: Final = {
    "WORLD_SIZE": "torchrun and oneflow.distributed.launch",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}
"""Variables with the number of processes, and who sets them."""


def check_single_process(environment: Mapping[str, str] = os.environ, modules: Mapping[str, Any] = sys.modules) -> None:
    """Refuse to train where this process is one of several.

    Args:
        environment: The environment's variables.
        modules: The modules that are imported. A process group of torch, as ``torch.multiprocessing.spawn`` is used
            with, is found there, and nothing is imported for it.

    Raises:
        Unsupported: A launcher says that there are several, or a process group has several.
    """
    for name, launcher in _COUNTS.items():
        count = environment.get(name, "")
        if count.isdecimal() and int(count) > 1:
            raise _refusal(int(count), f"{name}={count}, as {launcher} sets it")
    distributed = modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
        if size > 1:
            raise _refusal(size, f"torch.distributed has a process group of {size}")


def _refusal(count: int, why: str) -> Unsupported:
    return Unsupported(
        f"this process is one of {count} ({why}), and each of them would make the whole run and write the same files. "
        "Start a single one, with python or layered-lr; for several, use ll.compile in a training loop of your own."
    )
