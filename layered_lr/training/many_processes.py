"""Refuses a run in one of several processes that a launcher has started: each would make the whole run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from layered_lr.errors import Unsupported

_COUNTS: Final = {
    "WORLD_SIZE": "torchrun and oneflow.distributed.launch",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}
"""Variables with the number of processes, and who sets them."""


def check_single_process(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to train where this process is one of several.

    Args:
        environment: The environment's variables.

    Raises:
        Unsupported: A launcher says that there are several.
    """
    for name, launcher in _COUNTS.items():
        count = environment.get(name, "")
        if count.isdecimal() and int(count) > 1:
            raise Unsupported(
                f"this process is one of {count} ({name}={count}, as {launcher} sets it), and each of them would make "
                "the whole run and write the same files. Start a single one, with python or layered-lr; for several, "
                "use ll.compile in a training loop of your own."
            )
