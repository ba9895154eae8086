"""The first update, by torch's fused SGD, of a parameter that begins to train later than others.

torch's fused kernel of ``SGD`` takes either no momentum buffer at all or one for each parameter. It fails for a
parameter that comes late: one that was unfrozen, or had no gradient until then. torch's other implementations of SGD
can update such parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

SHARES_STATE: Final = "_layered_lr_shares_state"
"""An attribute of an optimizer: whether the states in it are not only those of its own parameters."""


def allow_late_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Let ``foreach`` make the updates in which some parameters have no momentum buffer yet; all others stay fused.

    While every parameter has its buffer, which is nearly always, this looks at none of them.
    """
    if isinstance(optimizer, torch.optim.SGD) and any(
        group["fused"] and group["momentum"] for group in optimizer.param_groups
    ):
        optimizer.register_step_pre_hook(_use_foreach_in_step)
        optimizer.register_step_post_hook(_use_fused)


@contextmanager
def allow_late_parameters_once(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Do what ``allow_late_parameters`` does, around a single update whose gradients are there."""
    if isinstance(optimizer, torch.optim.SGD):
        _use_foreach(optimizer)
    try:
        yield
    finally:
        if isinstance(optimizer, torch.optim.SGD):
            _use_fused(optimizer)


def _use_foreach_in_step(
    optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Switch before the update; with a closure, after the closure has made the gradients."""
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        _use_foreach(optimizer)
        return None

    def evaluate_and_switch() -> Any:
        loss = closure()
        _use_foreach(optimizer)
        return loss

    return args[:1], {**kwargs, "closure": evaluate_and_switch}


def _use_foreach(optimizer: torch.optim.Optimizer) -> None:
    """Switch the param groups that need it from fused to ``foreach``."""
    groups = [group for group in optimizer.param_groups if group["momentum"] and group["fused"]]
    shares_state = vars(optimizer).get(SHARES_STATE, False)  # with optimizers of other parameters
    if not shares_state and len(optimizer.state) >= sum(len(group["params"]) for group in groups):
        return
    for group in groups:
        updated = [parameter for parameter in group["params"] if parameter.grad is not None]
        buffers = [optimizer.state.get(parameter, {}).get("momentum_buffer") for parameter in updated]
        late = [parameter for parameter, buffer in zip(updated, buffers, strict=True) if buffer is None]
        if not late or len(late) == len(updated):
            continue
        if group["dampening"]:
            group.update(fused=False, foreach=True, late=True)
        else:  # a buffer of zeros gives the same first update, also with a GradScaler that foreach does not know
            for parameter in late:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter).detach()


def _use_fused(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Switch them back."""
    for group in optimizer.param_groups:
        if group.pop("late", False):
            group.update(fused=True, foreach=False)
