"""The first update of a parameter that begins to train later than others, with torch's fused SGD.

torch's fused kernel of ``SGD`` takes either no momentum buffer at all or one for each parameter, and fails where a
parameter comes late: unfrozen, or without a gradient until then. Its other implementations know such parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def allow_late_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Have updates with some first momentum buffers made by ``foreach``, and all others fused.

    While every parameter has its buffer, which is nearly always, this looks at none of them.
    """
    if isinstance(optimizer, torch.optim.SGD) and any(
        group["fused"] and group["momentum"] for group in optimizer.param_groups
    ):
        optimizer.register_step_pre_hook(_before)
        optimizer.register_step_post_hook(_after)


@contextmanager
def late_parameters(optimizer: Any) -> Iterator[None]:
    """Likewise, around one update."""
    if isinstance(optimizer, torch.optim.SGD):
        _before(optimizer)
    try:
        yield
    finally:
        if isinstance(optimizer, torch.optim.SGD):
            _after(optimizer)


def _before(optimizer: Any, *_: Any) -> None:
    groups = [group for group in optimizer.param_groups if group["momentum"] and group["fused"]]
    if len(optimizer.state) >= sum(len(group["params"]) for group in groups):
        return
    for group in groups:
        moving = [parameter for parameter in group["params"] if parameter.grad is not None]
        has_buffer = {optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in moving}
        if len(has_buffer) == 2:
            group.update(fused=False, foreach=True, late=True)


def _after(optimizer: Any, *_: Any) -> None:
    for group in optimizer.param_groups:
        if group.pop("late", False):
            group.update(fused=True, foreach=False)
