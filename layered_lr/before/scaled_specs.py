"""Specs at other rates: every rate of a spec, or that of one group, times a factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, cast

from layered_lr.errors import SpecError
from layered_lr.optimizers import Optimizer
from layered_lr.plans.resolve import REST
from layered_lr.schedules import Function, Schedule, Table
from layered_lr.spec.groups import Group
from layered_lr.spec.phases import Phase
from layered_lr.spec.spec import Spec

_RATES: Mapping[str, tuple[str, ...]] = {
    "CosineAnnealingLR": ("eta_min",),
    "CosineAnnealingWarmRestarts": ("eta_min",),
    "CosineDecay": ("min_lr", "warmup_lr"),
    "CyclicLR": ("base_lr", "max_lr"),
    "OneCycleLR": ("max_lr",),
    "ReduceLROnPlateau": ("min_lr", "eps"),
}
"""The arguments of schedules that are rates and no factors of one."""


def scale_spec(spec: Spec, factor: float) -> Spec:
    """Return the spec at ``factor`` times its rates: the plan of the result is the plan of ``spec`` times the factor.

    Raises:
        SpecError: A schedule computes the rate by a function of the user.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("head", lr=0.4)], ll.CosineDecay(100, min_lr=0.01))
        >>> scaled = scale_spec(spec, 0.5)
        >>> scaled.optimizer.lr, scaled.groups[0].lr, scaled.schedule.min_lr
        (0.05, 0.2, 0.005)
    """
    return replace(
        spec,
        optimizer=_scaled_optimizer(spec.optimizer, factor),
        groups=[_scaled_group(group, factor) for group in spec.groups],
        schedule=_scaled_schedule(spec.schedule, factor),
        phases=[_scaled_phase(phase, factor) for phase in spec.phases],
    )


def scale_group(spec: Spec, name: str, factor: float) -> Spec:
    """Return the spec with one group at ``factor`` times its rates, in every phase; the other groups keep theirs.

    Args:
        spec: With a group for each layer already, where it has a ``layer_decay``.
        name: Of the group; ``rest`` becomes a group of its own.
        factor: Of all of its rates.

    Example:
        >>> import layered_lr as ll
        >>> spec = scale_group(ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5), ll.Group("head")]), "body", 0.5)
        >>> [group.lr_scale for group in spec.groups]
        [0.25, 1.0]
    """
    groups = [_times(group, factor) if group.label == name else group for group in spec.groups]
    if name == REST and all(group.label != name for group in spec.groups):
        groups.append(Group("*", lr_scale=factor, name=REST))
    phases = [
        replace(phase, groups=[_times(group, factor) if group.label == name else group for group in phase.groups])
        for phase in spec.phases
    ]
    return replace(spec, groups=groups, phases=phases)


def scale_searched(spec: Spec, phase: int, group: str | None, factor: float) -> Spec:
    """Return the spec at ``factor`` times the rates of one phase, or of one group in it.

    Phases that train with the same optimizer at the same rate change with it. The others stay as they are: what suits
    one optimizer says nothing of another one.

    Args:
        spec: With a group for each layer already, where it has a ``layer_decay`` and one group is scaled.
        phase: Which one, from 1; of a spec without phases it is 1.
        group: The group's name; None is all groups.
        factor: Of the rates.

    Raises:
        SpecError: A schedule computes the rate by a function of the user.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase("1 epoch"), ll.Phase(optimizer=ll.AdamW(0.001))])
        >>> second = scale_searched(spec, 2, None, 3.0)
        >>> second.optimizer.lr, second.phases[1].optimizer.lr
        (0.1, 0.003)
    """
    if group == REST and all(each.label != REST for each in spec.groups):
        spec = replace(spec, groups=[*spec.groups, Group("*", name=REST)])
    scaled = scale_spec(spec, factor) if group is None else scale_group(spec, group, factor)
    if not spec.phases:
        return scaled
    searched = spec.phases[phase - 1].optimizer or spec.optimizer
    changes = [(each.optimizer or spec.optimizer) == searched for each in spec.phases]
    if all(changes):
        return scaled
    whole, kept = (scaled, spec) if spec.phases[phase - 1].optimizer is None else (spec, scaled)
    phases = [
        whole.phases[place] if changed == (whole is scaled) else _pin(kept, kept.phases[place])
        for place, changed in enumerate(changes)
    ]
    return replace(whole, phases=phases)


def _pin(spec: Spec, phase: Phase) -> Phase:
    """Return the phase with all that decides its rates, so that it means the same in a spec of other rates."""
    there = spec.in_phase(phase)
    return replace(phase, optimizer=there.optimizer, schedule=there.schedule, groups=there.groups)


def _times(group: Group, factor: float) -> Group:
    return replace(group, lr_scale=group.lr_scale * factor)


def _scaled_optimizer(optimizer: Optimizer, factor: float) -> Optimizer:
    return replace(optimizer, lr=optimizer.lr * factor)


def _scaled_group(group: Group, factor: float) -> Group:
    return replace(
        group,
        lr=None if group.lr is None else group.lr * factor,
        optimizer=None if group.optimizer is None else _scaled_optimizer(group.optimizer, factor),
        schedule=_scaled_schedule(group.schedule, factor),
    )


def _scaled_phase(phase: Phase, factor: float) -> Phase:
    return replace(
        phase,
        optimizer=None if phase.optimizer is None else _scaled_optimizer(phase.optimizer, factor),
        groups=[_scaled_group(group, factor) for group in phase.groups],
        schedule=_scaled_schedule(phase.schedule, factor),
    )


def _scaled_schedule(schedule: Schedule | None, factor: float) -> Schedule | None:
    """The schedule with all that is a rate in it times the factor; what is a factor of the group's rate stays."""
    if schedule is None:
        return None
    if isinstance(schedule, Function) and not schedule.factor:
        raise SpecError(
            f"{schedule!r} computes the rate itself, so that no other rate can be given to it. Let it compute a factor "
            "of the group's lr: Function(..., factor=True)."
        )
    if isinstance(schedule, Table) and not schedule.factor:
        numbers = cast(tuple[float, ...], schedule.values)  # its validator made a tuple of it
        return replace(schedule, values=[number * factor for number in numbers])
    changed: dict[str, Any] = {
        name: getattr(schedule, name) * factor for name in _RATES.get(type(schedule).__name__, ())
    }
    for each in fields(schedule):
        value = getattr(schedule, each.name)
        if isinstance(value, Schedule):
            changed[each.name] = _scaled_schedule(value, factor)
        elif isinstance(value, tuple) and value and isinstance(value[0], Schedule):
            changed[each.name] = [_scaled_schedule(one, factor) for one in value]
    return replace(schedule, **changed) if changed else schedule
