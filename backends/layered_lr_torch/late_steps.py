"""The first update of a parameter that begins to train later than others, with torch's fused SGD.

torch's fused kernel of ``SGD`` takes either no momentum buffer at all or one for each parameter. It fails for a
parameter that comes late: one that was unfrozen, or had no gradient until then. torch's other implementations of SGD
can update such parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def allow_late_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Let ``foreach`` make the updates in which some parameters have no momentum buffer yet; all others stay fused.

    While every parameter has its buffer, which is nearly always, this looks at none of them.
    """
    if isinstance(optimizer, torch.optim.SGD) and any(
        group["fused"] and group["momentum"] for group in optimizer.param_groups
    ):
        optimizer.register_step_pre_hook(_use_foreach)
        optimizer.register_step_post_hook(_use_fused)


@contextmanager
def allow_late_parameters_once(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Do what ``allow_late_parameters`` does, around a single update."""
    if isinstance(optimizer, torch.optim.SGD):
        _use_foreach(optimizer)
    try:
        yield
    finally:
        if isinstance(optimizer, torch.optim.SGD):
            _use_fused(optimizer)


def _use_foreach(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Switch the param groups that need it from fused to ``foreach``."""
    groups = [group for group in optimizer.param_groups if group["momentum"] and group["fused"]]
    if len(optimizer.state) >= sum(len(group["params"]) for group in groups):
        return
    for group in groups:
        updated = [parameter for parameter in group["params"] if parameter.grad is not None]
        has_buffer = {optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in updated}
        if len(has_buffer) == 2:
            group.update(fused=False, foreach=True, late=True)


def _use_fused(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Switch them back."""
    for group in optimizer.param_groups:
        if group.pop("late", False):
            group.update(fused=True, foreach=False)
