"""Checks of batches of more than one shape: several sizes of images, and a last batch that is smaller."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from layered_lr.backend.processes import ALONE, Processes
from layered_lr.backend.session import Session
from layered_lr.data import Batches
from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import Module, framework_of, set_training, type_names
from layered_lr.plans.plan import Plan
from layered_lr.printed import shown
from layered_lr.spec.phases import Phase
from layered_lr.training.options import RunOptions

TRIED = 2
"""How many images are sent through a model to see the shapes within it."""


def check_last_batch(options: RunOptions, train_size: int, processes: int = 1) -> None:
    """Refuse to keep a last batch that is smaller where an update of it would not be exact.

    Args:
        options: Of the run.
        train_size: Images of the training set.
        processes: That train together, among which a batch has to divide.

    Raises:
        Unsupported: A graph has one batch shape, and a batch that is filled up would change batch normalisations.
        SpecError: It would be one of several batches of an update.
    """
    rest = train_size % options.batch_size
    if options.drop_last or rest == 0:
        return
    sizes = range(options.batch_size, 0, -1)
    fitting = next((size for size in sizes if train_size % size == 0 and size % processes == 0), None)
    or_fit = "" if fitting is None else f", or give a batch_size that divides {train_size} (such as {fitting})"
    where = f"drop_last=False: the last batch of an epoch has {rest} of {options.batch_size} images"
    if options.backend == "oneflow-graph":
        raise Unsupported(
            f"{where}, and a graph has one batch shape; a batch that is filled up would change batch normalisations. "
            f"Use 'oneflow-eager', or leave drop_last out{or_fit}."
        )
    if options.accumulate_steps > 1:
        raise SpecError(
            f"{where}, and accumulate_steps={options.accumulate_steps} makes an update of batches of equal size. "
            f"Leave drop_last or accumulate_steps out{or_fit}."
        )


def check_unequal_parts(
    options: RunOptions, plan: Plan, model: Module, train_size: int, processes: Processes = ALONE
) -> None:
    """Refuse a last batch of which a process would have one image or none, under a batch normalisation of its own.

    Args:
        options: Of the run.
        plan: Of the whole run.
        model: Built, of either framework.
        train_size: Images of the training set.
        processes: That train together.

    Raises:
        SpecError: There is a batch normalisation that trains and sees the images of one process alone.
    """
    rest, count = train_size % options.batch_size, processes.share.count
    if options.drop_last or options.sync_batch_norm or not rest % count or rest >= 2 * count:
        return
    for each in plan.phase_plans:
        training = [name for name, _ in _list_training_norms(model, each)]
        if not training:
            continue
        has = "one image" if rest > count else "one image or none"
        raise SpecError(
            f"drop_last=False: the last batch of an epoch has {rest} of {options.batch_size} images, of which a "
            f"process has {has}, and the batch normalisation {training[0]!r} "
            "takes mean and variance over the images of one process. Leave drop_last out, give another batch_size, or "
            "use sync_batch_norm=True on 'torch-eager'."
        )


def check_single_image(
    options: RunOptions,
    plan: Plan,
    model: Module,
    train_size: int,
    answer: Callable[[], object],
    processes: Processes = ALONE,
) -> None:
    """Refuse a last batch of one image in a process, under a batch normalisation that has one number a channel of it.

    Args:
        options: Of the run.
        plan: Of the whole run.
        model: Built, of either framework.
        train_size: Images of the training set.
        answer: Sends ``TRIED`` images through the model, whatever comes of it.
        processes: That train together.

    Raises:
        SpecError: There is one that trains then, and such numbers have no variance.
    """
    rest, in_epoch, total = train_size % options.batch_size, plan.steps_per_epoch, plan.total_steps
    if options.drop_last or options.sync_batch_norm or rest != processes.share.count or not in_epoch or not total:
        return
    of_one_number = _find_norms_of_one_number(model, answer)
    phases = {plan.phase_index(step) for step in range(in_epoch - 1, total, in_epoch)}
    for each in (plan.phase_plans[place] for place in sorted(phases)):
        for name, _ in _list_training_norms(model, each):
            if name in of_one_number:
                raise SpecError(
                    f"drop_last=False: the last batch of an epoch has one image{_per_process(processes)}, of which the "
                    f"batch normalisation {name!r} gets one number of each channel, and one number has no variance. "
                    "Leave drop_last out, or give another batch_size."
                )


def _find_norms_of_one_number(model: Module, answer: Callable[[], object]) -> Collection[str]:
    """Find the batch normalisations that get one number of each channel of an image."""
    if framework_of(model) != "torch":  # OneFlow's own take a variance of 0
        translated: Collection[str] = getattr(model, "layered_lr_norms_of_one_number", ())
        return translated
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [module.register_forward_pre_hook(_noting(seen, name)) for name, module in _list_norms(model)]
    try:
        answer()
    finally:
        for hook in hooks:
            hook.remove()
    return {name for name, (count, _, *pixels) in seen.items() if count * math.prod(pixels) == TRIED}


def _list_norms(model: Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if "_BatchNorm" in type_names(module)]


def _list_training_norms(model: Module, plan: Plan) -> list[tuple[str, Any]]:
    """The batch normalisations that take their statistics from a batch in a phase, whose modes the model then has."""
    set_training(model, plan.frozen, (plan.phase or Phase()).batch_norm)
    return [(name, module) for name, module in _list_norms(model) if module.training]


def _per_process(processes: Processes) -> str:
    return " in each process" if processes.are_many else ""


def _noting(seen: dict[str, tuple[int, ...]], name: str) -> Callable[[Any, Any], None]:
    def note(module: Any, given: Any) -> None:
        seen[name] = tuple(given[0].shape)

    return note


def check_sizes(session: Session, batches: Batches) -> None:
    """Send a batch of each size through the model, before anything trains.

    Raises:
        SpecError: The model does not take images of one of the sizes.
    """
    for size in batches.sizes:
        try:
            session.logits(batches.test_at(size))
        except Unsupported:
            raise
        except Exception as error:  # whatever a forward pass raises
            is_ours = isinstance(error, LayeredLRError)
            why = str(error).strip().splitlines()[0].rstrip(".") if is_ours else describe_error(error)
            raise SpecError(
                f"sizes={shown(list(batches.sizes))}: the model does not take {size}x{size}: {why}. Give sizes that it "
                "takes, or a model for images of any size: one with a global pooling before its head."
            ) from error
