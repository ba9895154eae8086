"""Parameters that were frozen by hand when an optimizer was made, and are therefore not in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from layered_lr.errors import Unsupported
from layered_lr_torch.torch_types import Tensor

NamedTensor: TypeAlias = tuple[str, Tensor]
"""A parameter's name, and the parameter."""


def watch_omitted(optimizer: torch.optim.Optimizer, omitted: Sequence[NamedTensor]) -> None:
    """Refuse an update where such a parameter requires a gradient now: it would never move, without a word.

    One that was added by ``optimizer.add_param_group`` is in the optimizer, and trains.

    Args:
        optimizer: Without these parameters.
        omitted: The parameters by name.
    """
    waiting = list(omitted)

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        freed = [(name, tensor) for name, tensor in waiting if tensor.requires_grad]
        if not freed:
            return
        known = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        for name, tensor in freed:
            if id(tensor) not in known:
                raise Unsupported(
                    f"parameter {name!r} requires a gradient now, but it had requires_grad=False when the optimizer "
                    "was made, so the optimizer does not have it. Make the optimizer while everything that will train "
                    "has requires_grad=True, and freeze by phases (ll.Phase(frozen=...)); or add the parameter with "
                    "optimizer.add_param_group."
                )
        gone = {id(tensor) for _, tensor in freed}
        waiting[:] = [(name, tensor) for name, tensor in waiting if id(tensor) not in gone]

    optimizer.register_step_pre_hook(look)
