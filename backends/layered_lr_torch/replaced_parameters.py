"""Parameter objects that a model exchanges after ``compile``, as ``fully_shard`` does.

The optimizer would go on with the old objects, which never get a gradient: it would train nothing, without a word.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import torch

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.torch_types import Module, Tensor

Exchange: TypeAlias = Callable[[Tensor], Tensor]
"""Gives the new object for an old one; for any other object the same."""


@final
class ReplacedParameters:
    """Exchanges the objects in the optimizer too, before its first update.

    Args:
        optimizer: Of the model's parameters.
        model: The model as it is now.
        followers: Are told too; each is called with an ``Exchange``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: Module, *followers: Callable[[Exchange], None]) -> None:
        self._model = weakref.ref(model)
        self._followers = list(followers)
        self._known: Mapping[str, Tensor] = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._is_waiting = True
        optimizer.register_step_pre_hook(self._look)

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        model = self._model()
        if not self._is_waiting or model is None:
            return
        self._is_waiting = False
        now = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        new = {id(old): now[name] for name, old in self._known.items() if now.get(name, old) is not old}
        if not new:
            return
        if changed := [name for name, old in self._known.items() if now.get(name, old).shape != old.shape]:
            raise Unsupported(
                f"{len(changed)} parameters of the model have another shape than when ll.compile was called, such as "
                f"{changed[0]!r}. Call ll.compile when the model is complete."
            )

        def exchange(tensor: Tensor) -> Tensor:
            replaced: Tensor = new.get(id(tensor), tensor)
            return replaced

        has_parts = any(map(is_sharded, new.values()))
        for group in optimizer.param_groups:
            if has_parts and group.get("fused"):  # torch's fused kernels know no DTensor; torch chooses
                group.update(fused=None, foreach=None)
            group["params"] = [exchange(tensor) for tensor in group["params"]]
        for tensor in list(optimizer.state):
            if exchange(tensor) is not tensor:  # begun with the old object: Adagrad's sums
                del optimizer.state[tensor]
        for follower in self._followers:
            follower(exchange)
