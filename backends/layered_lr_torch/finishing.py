"""Changes a new torch optimizer as the library needs it, and does the same to its copies and pickles.

torch leaves hooks and a replaced ``step`` out of copies and pickles of an optimizer. A copy would therefore train
without clipping, and could not update a parameter that begins to train late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, TypeAlias

import torch

from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.grouped_steps import shorten_steps
from layered_lr_torch.late_steps import allow_late_parameters
from layered_lr_torch.mixed_optimizer import MixedOptimizer
from layered_lr_torch.omitted_parameters import NamedTensor, watch_omitted

Reduced: TypeAlias = tuple[Any, tuple[Any, ...]]
"""A function and its arguments, which make a copy: see ``object.__reduce__``."""

_CLIPPER, _OMITTED = "_layered_lr_clipper", "_layered_lr_omitted"  # attributes of the optimizer


def finish_optimizer(
    optimizer: torch.optim.Optimizer,
    clipper: GradientClipper | None,
    is_internal: bool = False,
    omitted: Sequence[NamedTensor] = (),
) -> None:
    """Let an optimizer clip, update late parameters and step fast, and let its copies and pickles do so too.

    The optimizer keeps its class.

    Args:
        optimizer: As torch made it.
        clipper: Clips the gradients before each update; None clips nothing.
        is_internal: Whether no user ever sees the optimizer; then ``shorten_steps`` also serves few param groups.
        omitted: Parameters of the model, by name, that were frozen by hand and are not in the optimizer.
    """
    if omitted:
        watch_omitted(optimizer, omitted)
    if clipper is not None:
        clipper.attach(optimizer)
    if not isinstance(optimizer, MixedOptimizer) and not shorten_steps(optimizer, also_few=is_internal):
        allow_late_parameters(optimizer)
    vars(optimizer)[_CLIPPER] = clipper
    vars(optimizer)[_OMITTED] = list(omitted)
    vars(optimizer)["__reduce_ex__"] = MethodType(_reduce, optimizer)  # copy and pickle look at the object first


def is_finished(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is one of ``finish_optimizer``."""
    return _OMITTED in vars(optimizer)


def find_clipper(optimizer: torch.optim.Optimizer) -> GradientClipper | None:
    """Return what clips the gradients of an optimizer, if it was attached here; None if nothing does."""
    clipper: GradientClipper | None = vars(optimizer).get(_CLIPPER)
    return clipper


def attach_clipper(optimizer: torch.optim.Optimizer, clipper: GradientClipper) -> None:
    """Let an optimizer clip from now on, which does not so far; the next scheduler of the optimizer finds the clipper.

    Two clippers would clip one after the other.
    """
    clipper.attach(optimizer)
    vars(optimizer)[_CLIPPER] = clipper
    if not is_finished(optimizer):
        vars(optimizer)["__reduce_ex__"] = MethodType(_reduce_clipped, optimizer)


def _reduce_clipped(optimizer: torch.optim.Optimizer, protocol: Any) -> Reduced:
    """Say how to make a copy of an optimizer that the user has made, and that clips since."""
    return _restore_clipped, (type(optimizer).__reduce_ex__(optimizer, protocol), vars(optimizer)[_CLIPPER])


def _restore_clipped(own: tuple[Any, ...], clipper: GradientClipper) -> torch.optim.Optimizer:
    """Make the copy as its class does, and let it clip too."""
    make, arguments, *rest = own
    optimizer: torch.optim.Optimizer = make(*arguments)
    if rest and rest[0] is not None:
        optimizer.__setstate__(rest[0])
    attach_clipper(optimizer, clipper)
    return optimizer


def _reduce(optimizer: torch.optim.Optimizer, protocol: int) -> Reduced:
    """Say how to make a copy; the clipper is part of it, so that it clips the copy's own parameters."""
    added = vars(optimizer)
    return _restore, (type(optimizer), optimizer.__getstate__(), added[_CLIPPER], added[_OMITTED])


def _restore(
    cls: type[torch.optim.Optimizer],
    state: Mapping[str, Any],
    clipper: GradientClipper | None,
    omitted: Sequence[NamedTensor],
) -> torch.optim.Optimizer:
    """Make the copy."""
    optimizer = cls.__new__(cls)
    optimizer.__setstate__(dict(state))
    finish_optimizer(optimizer, clipper, omitted=omitted)
    return optimizer
