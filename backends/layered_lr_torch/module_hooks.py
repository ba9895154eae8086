"""Hooks before a module's forward pass, which copies and pickles of the module do not have."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, final

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from layered_lr_torch.torch_types import Module


@final
class StillHook:
    """Brings a module into evaluation mode before each forward pass, also after ``model.train()``."""

    def __call__(self, module: Module, _: object) -> None:
        """Hold the module still."""
        module.eval()

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Let a copy of the module, such as an average of its weights, be free."""
        return _get_inert, ()


@final
class FirstForward:
    """Calls a method before the next forward pass of a model, or of any module in it, and then no more.

    Every module has a hook, because trainers call parts of a model, and ``model(...)`` itself perhaps never. Only
    ``DistributedDataParallel`` has none: the method is called inside of its forward pass.

    Args:
        modules: All modules of the model.
        call: The method. It is held weakly, so that the model does not keep its owner alive.
    """

    def __init__(self, modules: Iterable[Module], call: Callable[[], None]) -> None:
        self._call: Final = weakref.WeakMethod(call)
        self._handles: Final[list[RemovableHandle]] = [
            module.register_forward_pre_hook(self, prepend=True)  # before fully_shard's own
            for module in modules
            if not isinstance(module, DistributedDataParallel)
        ]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, module: Module, _: object) -> None:
        """Be called by the first module whose forward pass begins."""
        self.remove()
        call = self._call()
        if call is not None:
            call()

    def remove(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Let a copy of the model have nothing of it: its own scheduler, if there is one, makes hooks anew."""
        return _get_inert, ()


def _remove_inert(module: Module, _: object) -> None:
    """Stand in a copied module for a hook of the original, and go at the first forward pass."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _remove_inert:
            del module._forward_pre_hooks[key]


def _get_inert() -> Callable[[Module, object], None]:
    return _remove_inert
