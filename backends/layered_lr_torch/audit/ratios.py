"""Rates that no longer tell groups apart: a floor, one rate for all of them, or ``lr_scale`` that nobody reads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from layered_lr.arrays import Float64
from layered_lr.findings import Finding
from layered_lr_torch.audit.recipe import ListedGroup, list_parts
from layered_lr_torch.plan_scheduler import PlanScheduler

_MOST_APART = 0.25  # between the shapes of two groups' rates: 1 is a group that stays while another falls to 0
_OVERWRITING = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


def has_scales(groups: Sequence[ListedGroup]) -> bool:
    """Whether ``lr_scale`` tells groups apart, or is anything but 1."""
    return any(float(group.options.get("lr_scale", 1.0)) != 1.0 for group in groups)


def find_unread_scales(optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup]) -> Iterator[Finding]:
    """Yield groups whose ``lr_scale`` is in no rate, where no scheduler reads it."""
    scales = [float(group.options.get("lr_scale", 1.0)) for group in groups]
    rates_have_them = len(set(scales)) > 1 and (
        _are_in_proportion([group.base_rate for group in groups], scales)
        or _are_in_proportion(
            [group.rate for group in groups],
            [group.base_rate * each for group, each in zip(groups, scales, strict=True)],
        )
    )
    if rates_have_them or _reads_scale(optimizer):
        return
    labels = tuple(group.label for group, scale in zip(groups, scales, strict=True) if scale != 1.0)
    yield Finding(
        "lr-scale-unread",
        f"{len(labels)} groups have lr_scale, such as {min(scales):g}, and neither optimizer nor scheduler reads it.",
        labels,
        (),
        "Each of these groups trains at the full rate.",
        "use timm's scheduler, which multiplies by lr_scale, or multiply lr yourself. If the loop does so, give it as "
        "scheduler=function(optimizer, step).",
    )


def _are_in_proportion(rates: Sequence[float], others: Sequence[float]) -> bool:
    """Whether rates are others times one factor above 0."""
    pairs = [(rate, other) for rate, other in zip(rates, others, strict=True) if rate or other]
    if not pairs or not all(rate and other for rate, other in pairs):
        return False
    factors = [rate / other for rate, other in pairs]
    return bool(np.allclose(factors, factors[0], rtol=1e-6, atol=0.0))


def _reads_scale(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer that is not torch's speaks of ``lr_scale`` in its code."""
    for base in type(optimizer).__mro__:
        if base.__module__.startswith("torch.") or base is object:
            continue
        try:
            if "lr_scale" in inspect.getsource(base):
                return True
        except (OSError, TypeError):  # made in a prompt
            continue
    return False


def find_flattened(
    groups: Sequence[ListedGroup], scheduler: Any, rates: Float64, reads_scale: bool
) -> Iterator[Finding]:
    """Yield groups whose rates do not keep their ratio.

    Args:
        groups: Of one optimizer.
        scheduler: Its scheduler.
        rates: Over the run, shape (steps + 1, groups).
        reads_scale: Whether it multiplies by ``lr_scale``.
    """
    if any(isinstance(part, _OVERWRITING) for part in list_parts(scheduler)) and (twins := _find_twins(groups)):
        yield Finding(
            "ratio-flattened",
            f"{len(twins)} groups have the same settings and the same rates: one rate was given to "
            f"{type(scheduler).__name__} for all groups.",
            twins,
            (),
            "The groups' own lr was overwritten when the scheduler was made: all of them train at one rate.",
            "give a list with a rate for each group, such as max_lr=[group['lr'] for group in optimizer.param_groups].",
        )
        return
    if isinstance(scheduler, PlanScheduler) or _is_meant(scheduler):
        return
    scales = np.array([float(group.options.get("lr_scale", 1.0)) for group in groups])
    bases = np.array([group.base_rate for group in groups])
    if reads_scale or (len(rates) and _are_in_proportion(rates[0].tolist(), (bases * scales).tolist())):
        bases = bases * scales
    with np.errstate(all="ignore"):
        shapes = np.where(bases > 0, rates / bases, np.where(rates > 0, np.inf, np.nan))
    if len(groups) < 2 or not len(rates) or (np.isnan(shapes).all(axis=0).any() and len(groups) == 2):
        return
    usual = shapes[:, int(np.nanargmax(bases))]
    apart = np.nan_to_num(np.abs(shapes - usual[:, None]), nan=0.0)
    wrong = [place for place in range(len(groups)) if apart[:, place].max() > _MOST_APART]
    if wrong:
        place = wrong[int(np.argmax([apart[:, each].max() for each in wrong]))]
        step = int(apart[:, place].argmax())
        top = int(np.nanargmax(bases))
        yield Finding(
            "ratio-flattened",
            f"{groups[place].label} begins at {bases[place]:g} where {groups[top].label} has {bases[top]:g}; "
            f"{step} steps later they are at {rates[step, place]:g} and {rates[step, top]:g}.",
            tuple(groups[each].label for each in wrong),
            (),
            "The schedule does not keep the ratio of the groups' rates: a floor, or a rate for all of them, is too "
            "high for these groups.",
            "take eta_min, min_lr or the one rate below the smallest group's, or give a value for each group.",
        )


def _find_twins(groups: Sequence[ListedGroup]) -> tuple[str, ...]:
    """Groups that differ in nothing but their parameters and names."""
    without = ("params", "param_names", "name")
    options = [{name: value for name, value in group.options.items() if name not in without} for group in groups]
    twins = [
        group.label
        for place, group in enumerate(groups)
        if any(other != place and options[other] == options[place] for other in range(len(groups)))
    ]
    return tuple(twins)


def _is_meant(scheduler: Any) -> bool:
    """Whether a scheduler has a schedule of its own for each group, on purpose."""
    for part in list_parts(scheduler):
        functions = getattr(part, "lr_lambdas", None)
        if functions and len({id(function) for function in functions}) > 1:
            return True
        floors = getattr(part, "min_lrs", None)
        if isinstance(part, lr_scheduler.ReduceLROnPlateau) and floors and len(set(floors)) > 1:
            return True
    return False
