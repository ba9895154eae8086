"""``adopt``: the spec of an optimizer and a scheduler that exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layered_lr.auditing import AnyScheduler
from layered_lr.backend.base import LoopOptimizer
from layered_lr.backend.loading import load_backend
from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.printed import shown
from layered_lr.registry import FRAMEWORKS, load_attribute
from layered_lr.schedules.base import Unit
from layered_lr.spec.spec import Spec


def adopt(
    optimizer: LoopOptimizer | Sequence[LoopOptimizer],
    model: Module,
    scheduler: AnyScheduler | Sequence[AnyScheduler] = None,
    *,
    unit: Unit = "step",
) -> Spec:
    """Read the spec out of an optimizer of torch and its scheduler, as somebody wrote them by hand.

    ``compile(adopt(optimizer, model, scheduler), model)`` trains as they do, and the spec trains on every other backend
    too. It is the spec of the whole run, also where the run has begun: rates are those before the schedule
    (``initial_lr``). The state of the optimizer is no part of it; ``save_state`` and ``load_state`` take that along.

    Before it is returned, its rates are compared with those of a copy of the scheduler.

    Args:
        optimizer: One of the optimizers of this library, as ``torch.optim`` has it. Or a list of several that have
            different parameters of the model and step together, such as Muon and AdamW: the spec has one, and the
            groups of other kinds have an optimizer of their own.
        model: The model whose parameters they have. Each parameter with ``requires_grad=True`` must be in a group.
        scheduler: A scheduler of torch with settings that can be read, ``SequentialLR`` and ``ChainedScheduler`` of
            them, the functions of transformers, or timm's ``CosineLRScheduler``; None is a constant rate. A function in
            ``LambdaLR`` stays a function; a lambda cannot be saved, which ``to_toml`` says. For several optimizers a
            list with one for each, or None.
        unit: What one call of ``scheduler.step()`` is: an update (``"step"``) or an epoch. timm's scheduler knows.

    Returns:
        Groups in the order of the optimizer, with literal names: of a module, where all of it is in one group.
        ``foreach`` is as torch chooses it where the parameters are now, so that the updates are the same to the bit.

    Raises:
        SpecError: Something cannot be read exactly, a rate is not the scheduler's, or the optimizer is not the model's.
        Unsupported: The model is one of OneFlow.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[1].parameters()}]
        >>> optimizer = torch.optim.SGD(groups, lr=0.1)
        >>> spec = ll.adopt(optimizer, model, torch.optim.lr_scheduler.StepLR(optimizer, 30, gamma=0.5))
        >>> spec.groups[0].match, spec.groups[0].lr, spec.schedule
        ('0', 0.01, StepLR(step_size=30, gamma=0.5))
        >>> ll.Spec.from_toml(spec.to_toml()) == spec
        True
    """
    framework = framework_of(model)
    if framework == "oneflow":
        raise Unsupported("adopt: this model is a oneflow.nn.Module, and adopt reads recipes of torch.")
    if framework is None:
        hint = f" Give an object of it, {model.__name__}(...)." if isinstance(model, type) else ""
        raise SpecError(f"adopt: model is a {type(model).__name__}; must be a torch.nn.Module object.{hint}")
    optimizers, schedulers = _read_lists(optimizer, scheduler)
    if unit not in ("step", "epoch"):
        raise SpecError(f"adopt: unit={shown(unit)}: must be 'step' or 'epoch'.")
    load_backend(FRAMEWORKS["torch"].loop, "cpu")
    read: Any = load_attribute(str(FRAMEWORKS["torch"].adopter))
    spec: Spec = read(optimizers, model, schedulers, unit)
    return spec


def _read_lists(optimizer: Any, scheduler: Any) -> tuple[list[Any], list[Any]]:
    """The optimizers, and the scheduler of each.

    Raises:
        SpecError: They do not go together.
    """
    if not isinstance(optimizer, list | tuple):
        if isinstance(scheduler, list | tuple):
            raise SpecError(
                f"adopt: scheduler is a list of {len(scheduler)}, for one optimizer; join them in torch's SequentialLR "
                "or ChainedScheduler."
            )
        return [optimizer], [scheduler]
    if not optimizer:
        raise SpecError("adopt: optimizer is an empty list; give an optimizer, or several.")
    if scheduler is None:
        return list(optimizer), [None] * len(optimizer)
    if not isinstance(scheduler, list | tuple) or len(scheduler) != len(optimizer):
        given = f"a list of {len(scheduler)}" if isinstance(scheduler, list | tuple) else "one"
        raise SpecError(
            f"adopt: scheduler is {given}, for {len(optimizer)} optimizers; give a list with one for each of them, and "
            "None where there is none."
        )
    return list(optimizer), list(scheduler)
