"""The optimizer state of parameters that have had no update yet, in what is saved and loaded.

Tools that load an optimizer's state by names, such as ``torch.distributed.checkpoint``, want a state for every
parameter that requires a gradient. A parameter that a phase freezes has none until it trains.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, final

import torch

from layered_lr_torch.slots import begins_at_rate, make_new_state, pair_with_examples
from layered_lr_torch.torch_types import Tensor


@final
class NewStates:
    """Completes what ``optimizer.state_dict()`` returns, and takes out again what means the same as no state.

    Args:
        waiting: The parameters that train in some phase.
    """

    def __init__(self, waiting: Collection[Tensor]) -> None:
        self.waiting = list(waiting)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Do so with an optimizer from now on."""
        optimizer.register_state_dict_post_hook(self._complete)
        optimizer.register_load_state_dict_post_hook(self._reduce_loaded)

    def _complete(self, optimizer: torch.optim.Optimizer, table: dict[str, Any]) -> None:
        if not table["state"]:
            return
        indices = [index for group in table["param_groups"] for index in group["params"]]
        groups = {tensor: group for group in optimizer.param_groups for tensor in group["params"]}
        index_of = dict(zip(groups, indices, strict=True))
        for _, tensor, example in list(pair_with_examples(optimizer, {str(i): t for i, t in enumerate(self.waiting)})):
            if example and index_of[tensor] not in table["state"]:
                made = table["state"][index_of[tensor]] = make_new_state(example, tensor)
                if groups[tensor].get("dampening") and "momentum_buffer" in made:
                    made["momentum_buffer"].neg_()  # so that it is told from one whose gradients were all zero

    def _reduce_loaded(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop states that mean none: with dampening a buffer of negative zeros, and what begins at the rate."""
        for group in optimizer.param_groups:
            for tensor in group["params"] if begins_at_rate(optimizer, group) else ():
                if tensor in optimizer.state and not float(optimizer.state[tensor].get("step", 0)):
                    del optimizer.state[tensor]
            for tensor in group["params"] if group.get("dampening") else ():
                buffer = optimizer.state.get(tensor, {}).get("momentum_buffer")
                if buffer is not None and not buffer.any() and buffer.signbit().all():
                    del optimizer.state[tensor]["momentum_buffer"]
