"""``audit``: finds faults in a training recipe that somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from layered_lr.backend.base import LoopOptimizer
from layered_lr.backend.loading import load_backend
from layered_lr.counts import whole_number
from layered_lr.errors import SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.findings import Audit
from layered_lr.models.nn_modules import Module, Tensor, framework_of
from layered_lr.printed import shown
from layered_lr.registry import FRAMEWORKS, load_attribute
from layered_lr.training.import_paths import imported

AnyScheduler: TypeAlias = Any
"""A scheduler of torch, timm or others, or a function ``(optimizer, step)`` that sets rates."""


def audit(
    optimizer: LoopOptimizer | Sequence[LoopOptimizer],
    model: Module | Sequence[Module],
    scheduler: AnyScheduler | Sequence[AnyScheduler] = None,
    steps: int | None = None,
    *,
    ema: Module | Mapping[str, Tensor] | Iterable[Tensor] | None = None,
    clipped: Iterable[Tensor] | None = None,
) -> Audit:
    """Find faults in a training recipe of torch that somebody wrote by hand, before it trains.

    The recipe needs nothing of this library. Nothing that you give is changed: no parameter, rate, state or random
    number. The scheduler is stepped on a copy, beside an optimizer of the same groups that has no parameters.

    In a process group of ``torch.distributed`` every rank calls it, and the ranks' groups are compared. A rank that
    does not call it is waited for a minute.

    Args:
        optimizer: A ``torch.optim.Optimizer`` of any class, or a list of them.
        model: What they train: a ``torch.nn.Module``, or a list of them (such as a model, and a loss with parameters).
        scheduler: A scheduler of torch or timm, a function ``(optimizer, step)`` that sets the rates of an optimizer in
            its param groups, or a list of these; None is a recipe without schedulers.
        steps: How often the loop calls ``scheduler.step()`` in the whole run: once for each update, or once for each
            epoch. None follows the schedule over its own length, and cannot say whether that fits the run.
        ema: A moving average of the weights: an ``AveragedModel`` or another module, tensors by name, or tensors.
        clipped: The parameters that the loop gives to ``clip_grad_norm_`` or ``clip_grad_value_``.

    Returns:
        The findings: kind, place, what each does to the run, and how to mend it. For a clean recipe there are none.

    Raises:
        SpecError: This is no optimizer or no model of torch, or an argument is of another kind.
        Unsupported: The model is one of OneFlow.
        BackendUnavailable: torch cannot be imported.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> groups = [{"params": model[0].parameters(), "lr": 1e-5}, {"params": model[1].parameters()}]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-2)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-3)
        >>> for finding in ll.audit(optimizer, model, scheduler, steps=10).findings:
        ...     print(finding.kind, finding.groups)
        ratio-flattened ('group 0',)
    """
    optimizers = _as_list("optimizer", optimizer)
    models = _as_list("model", model)
    schedulers = () if scheduler is None else _as_list("scheduler", scheduler)
    if steps is not None:
        steps = whole_number("steps", steps, 1)
    for each in models:
        framework = framework_of(each)
        if framework == "oneflow":
            raise Unsupported(
                "audit: reads recipes of torch; this model is a oneflow.nn.Module. Audit the torch recipe."
            )
        if framework is None:
            hint = f" Give an object of it, {each.__name__}(...)." if isinstance(each, type) else ""
            raise SpecError(f"audit: model is {_describe(each)}; must be a torch.nn.Module object.{hint}")
    load_backend(FRAMEWORKS["torch"].loop, "cpu")
    found: Audit = load_attribute(str(FRAMEWORKS["torch"].auditor))(optimizers, models, schedulers, steps, ema, clipped)
    return found


def audit_made(path: str, steps: int | None) -> Audit:
    """Audit what a function makes, as the command does.

    Args:
        path: ``package.module:name`` of a function without arguments. It returns the arguments of ``audit``: a tuple in
            their order, or a mapping.
        steps: As in ``audit``; None takes what the function gives.

    Raises:
        SpecError: It cannot be imported, it fails, or it returns something else.
    """
    make = imported(path, "MODULE:MAKE")
    try:
        made = make()
    except (Exception, SystemExit) as error:  # whatever the user's code raises; argparse ends the process
        raise SpecError(f"audit: {path}() failed: {describe_error(error)}") from error
    names = ("optimizer", "model", "scheduler", "steps", "ema", "clipped")
    given = dict(zip(names, made, strict=False)) if isinstance(made, tuple) and len(made) <= len(names) else made
    if not isinstance(given, Mapping) or not {"optimizer", "model"} <= given.keys() <= set(names):
        raise SpecError(
            f"audit: {path}() returned {shown(made)}; must return (optimizer, model) or (optimizer, model, scheduler), "
            f"or a dictionary with some of {', '.join(names)}."
        )
    return audit(**{**given, **({} if steps is None else {"steps": steps})})


def _as_list(what: str, given: Any) -> tuple[Any, ...]:
    """One object or several as a tuple."""
    if not isinstance(given, list | tuple):
        return (given,)
    if not given:
        raise SpecError(f"audit: {what}={shown(given)} is empty; give one or several.")
    return tuple(given)


def _describe(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
