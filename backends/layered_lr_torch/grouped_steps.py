"""Shorter updates of many param groups; the result is bitwise that of torch's own ``step``.

torch goes through an optimizer's param groups one by one, and needs some 11 microseconds for each before any number is
touched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from operator import itemgetter
from types import MethodType
from typing import Any, Final

import torch
from torch.optim import Optimizer

from layered_lr_torch.fused_kernels import KERNELS, FusedStep, is_exact, is_plain
from layered_lr_torch.late_steps import allow_late_parameters_once
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.torch_types import Closure, ParameterState, ParamGroup

MANY: Final = 4
"""So many param groups count as many. With fewer torch's own step is left alone: there is little to gain."""

_FUSED_STEP: Final = "_layered_lr_fused_step"  # an attribute of the optimizer
_NO_STATE: Final[ParameterState] = {}
_UNKNOWN: Final = ("somebody may listen",)  # where torch has other names for what is private to it


def shorten_steps(optimizer: Optimizer, also_few: bool = False) -> bool:
    """Make ``optimizer.step`` faster where there are many param groups; its result stays the same.

    The optimizer keeps its class, param groups, state and hooks; the hooks are called as before. Each step reads the
    param groups anew.

    - SGD, Adam, AdamW and Adagrad, fused, on a CPU: torch's kernels are called directly, once for each rate and set of
      hyperparameters. The kernels are private to torch. They are tried first, and not used if they behave differently
      from what this code knows.
    - Any other optimizer: torch's own step sees param groups of the same rate and hyperparameters as one.

    torch's own step is called with a ``GradScaler`` that scales, for first updates, and where rates are tensors. A
    closure is called before it.

    Args:
        optimizer: As it was made.
        also_few: Also with fewer than ``MANY`` param groups, if the kernels can be called directly.

    Returns:
        Whether the step was changed. If so, it also does what ``allow_late_parameters`` does.
    """
    cls: Any = type(optimizer)
    own = getattr(cls.step, "__wrapped__", None)  # without the hooks, which are called around all of it
    add_hooks = getattr(Optimizer, "profile_hook_step", None)
    are_few = len(optimizer.param_groups) < MANY
    if (are_few and not also_few) or own is None or add_hooks is None:
        return False
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    on_cpu = all(tensor.is_cpu for tensor in tensors) and not any(map(is_sharded, tensors))
    fused = cls in KERNELS and any(group["fused"] for group in optimizer.param_groups)
    fused_step = FusedStep(cls, tuple(optimizer.defaults)) if fused and on_cpu and is_exact(cls) else None
    if are_few and fused_step is None:
        return False

    def step(self: Optimizer, closure: Closure | None = None) -> Any:
        if torch.compiler.is_compiling():
            return own(self, closure)
        loss = None
        if closure is not None:  # here, because what follows looks at the gradients
            with torch.enable_grad():
                loss = closure()
        update_shortly(self, own, fused_step)
        return loss

    vars(optimizer)["step"] = MethodType(add_hooks(step), optimizer)
    vars(optimizer)[_FUSED_STEP] = fused_step
    return True


def update_shortly(optimizer: Optimizer, own: Callable[..., Any], fused_step: FusedStep | None) -> None:
    """Make an update whose gradients are there.

    Args:
        optimizer: Of torch.
        own: The step of its class, without hooks.
        fused_step: Makes the update by direct calls, if it can.
    """
    if fused_step is not None and fused_step(optimizer):
        return
    with allow_late_parameters_once(optimizer), _MergedGroups(optimizer):
        own(optimizer)


def let_update_directly(optimizer: Optimizer, update: Callable[[Optimizer], bool]) -> None:
    """Let ``HooklessStep`` make the updates of an optimizer by a function, which says whether it has made one."""
    vars(optimizer)[_FUSED_STEP] = update


class HooklessStep:
    """Makes updates without the cost of ``optimizer.step``'s hooks, as long as nobody has registered any.

    Hooks and a profiler's entry take a third of the time of an update of a few small tensors.

    Args:
        optimizer: After ``shorten_steps`` and after its scheduler was made.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._step: Callable[..., Any] | None = vars(optimizer).get("step")
        self._fused_step: Callable[[Optimizer], bool] | None = vars(optimizer).get(_FUSED_STEP)
        self._hooks = [
            getattr(holder, name, _UNKNOWN)
            for holder, name in (
                (optimizer, "_optimizer_step_pre_hooks"),
                (optimizer, "_optimizer_step_post_hooks"),
                (sys.modules[Optimizer.__module__], "_global_optimizer_pre_hooks"),
                (sys.modules[Optimizer.__module__], "_global_optimizer_post_hooks"),
            )
        ]

    def step(self, optimizer: Optimizer) -> None:
        """Make an update of this optimizer, or of another one that has taken its place."""
        if (
            self._fused_step is not None
            and optimizer is self._optimizer
            and vars(optimizer).get("step") is self._step
            and not any(self._hooks)
            and not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
            and self._fused_step(optimizer)
        ):
            vars(optimizer)["_opt_called"] = True  # torch's schedulers look for it
            return
        optimizer.step()


class _MergedGroups(AbstractContextManager[None]):
    """Shows torch param groups that agree in everything the update reads as one, while it steps."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def __enter__(self) -> None:
        self._own = self._optimizer.param_groups
        self._optimizer.param_groups = _merge_groups(self._optimizer)

    def __exit__(self, *_: object) -> None:
        self._optimizer.param_groups = self._own


def _merge_groups(optimizer: Optimizer) -> list[ParamGroup]:
    own = optimizer.param_groups
    get_values = itemgetter(*(name for name in optimizer.defaults if name in own[0]))  # torch adds names to a copy's
    found: dict[tuple[Any, frozenset[bool]], list[ParamGroup]] = {}
    for group in own:
        values = get_values(group)
        if not is_plain(values):
            return own
        has_buffer: frozenset[bool] = frozenset()
        if isinstance(optimizer, torch.optim.SGD):  # its first update of a parameter differs from the later ones
            updated = [tensor for tensor in group["params"] if tensor.grad is not None]
            states = [optimizer.state.get(tensor, _NO_STATE) for tensor in updated]
            has_buffer = frozenset(state.get("momentum_buffer") is not None for state in states)
        found.setdefault((values, has_buffer), []).append(group)
    if len(found) == len(own):
        return own
    return [
        {**equal[0], "params": [tensor for group in equal for tensor in group["params"]]} for equal in found.values()
    ]
