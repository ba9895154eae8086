"""Several processes at once that have torch imported already: they are forked from one that has done it."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable
from typing import Any


def call_together(function: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call a function in each of several processes, and wait for them.

    To import torch takes 3 s of a processor for each process; here it is done once for all calls of a test run. The
    processes have the environment variables of the first call.

    Args:
        function: Of a module; it is given the number of its process, and then the arguments.
        count: How many processes.
        arguments: Can be pickled.

    Raises:
        Exception: One of the processes failed; the others are ended.
    """
    import torch

    torchvision = ["torchvision"] if importlib.util.find_spec("torchvision") else []
    multiprocessing.set_forkserver_preload(["torch", "torch._dynamo", *torchvision])
    torch.multiprocessing.start_processes(function, arguments, nprocs=count, start_method="forkserver")
