"""Schedules as plain tables, which TOML and JSON can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.guesses import explain_type, unknown_name
from layered_lr.printed import shown
from layered_lr.schedules.base import Schedule, default_values
from layered_lr.schedules.composed import ChainedScheduler, SequentialLR
from layered_lr.schedules.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from layered_lr.schedules.cyclic import CyclicLR
from layered_lr.schedules.decay import (
    Constant,
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from layered_lr.schedules.onecycle import OneCycleLR
from layered_lr.schedules.plateau import ReduceLROnPlateau
from layered_lr.schedules.reference import Reference
from layered_lr.schedules.user import Function, LambdaLR, MultiplicativeLR, Table
from layered_lr.schedules.warmup import WSD, CosineDecay, InverseSqrt, Warmup

SCHEDULES: dict[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        Constant,
        LambdaLR,
        MultiplicativeLR,
        StepLR,
        MultiStepLR,
        ConstantLR,
        LinearLR,
        ExponentialLR,
        PolynomialLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        CyclicLR,
        OneCycleLR,
        ReduceLROnPlateau,
        SequentialLR,
        ChainedScheduler,
        Warmup,
        CosineDecay,
        InverseSqrt,
        WSD,
        Table,
        Function,
    )
}


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    """Turn a schedule into strings, numbers, lists and dicts.

    Values that equal their default are left out. ``schedule_from_dict`` makes an equal schedule from the result.

    Raises:
        SpecError: A function in it has no import path, or its class is not from this library.

    Example:
        >>> import layered_lr as ll
        >>> schedule_to_dict(ll.StepLR(step_size=30))
        {'type': 'StepLR', 'step_size': 30}
    """
    kind = type(schedule)
    if SCHEDULES.get(kind.__name__) is not kind:
        raise SpecError(f"{kind.__name__} cannot be saved: it must be one of {', '.join(SCHEDULES)}.")
    values = {entry.name: getattr(schedule, entry.name) for entry in fields(schedule)}
    defaults = default_values(kind)
    plain = {name: _to_plain(kind, name, value) for name, value in values.items() if value != defaults[name]}
    for child in (value for value in plain.values() if isinstance(value, dict)):
        _drop_inherited(plain, child)
    for child in (child for value in plain.values() if isinstance(value, list) for child in value):
        if isinstance(child, dict):
            _drop_inherited(plain, child)
    return {"type": kind.__name__, **plain}


def schedule_from_dict(data: Mapping[str, Any]) -> Schedule:
    """Make a schedule from a table, as ``schedule_to_dict`` returns it or a user writes it.

    Raises:
        SpecError: The type or a key is unknown (the message names the nearest), a key is missing, or a value is not
            allowed.

    Example:
        >>> schedule_from_dict({"type": "StepLR", "step_size": 30})
        StepLR(step_size=30)
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"A schedule must be a table such as {{type = 'StepLR', step_size = 30}}, not {shown(data)}.")
    if "type" not in data:
        raise SpecError(f"A schedule needs 'type', one of {', '.join(SCHEDULES)}; it has {shown(list(data))}.")
    name = data["type"]
    kind = SCHEDULES.get(name) if isinstance(name, str) else None
    if kind is None:
        near = explain_type(str(name), SCHEDULES)
        raise SpecError(f"type={shown(name)} is not a schedule.{near} Use one of: {', '.join(SCHEDULES)}.")
    known = [entry.name for entry in fields(kind)]
    for key in data:
        if key != "type" and key not in known:
            raise SpecError(f"{name} has no {shown(key)}.{unknown_name('schedule', str(key), known)}")
    return kind(**{key: _read_children(value) for key, value in data.items() if key != "type"})


def _to_plain(kind: type[Schedule], name: str, value: Any) -> Any:
    if isinstance(value, Schedule):
        return schedule_to_dict(value)
    if isinstance(value, tuple):
        return [_to_plain(kind, name, one) for one in value]
    if isinstance(value, Reference):
        return value.path
    if callable(value):
        raise SpecError(
            f"{kind.__name__}({name}={shown(value)}) cannot be saved: lambdas, local functions and functions of the "
            "running script have no import path. Define it in a module and give 'package.module:name'."
        )
    return value


def _drop_inherited(parent: dict[str, Any], child: dict[str, Any]) -> None:
    if child["type"] != ReduceLROnPlateau.__name__:
        for name in ("unit", "every_step"):
            if name in parent and child.get(name) == parent[name]:
                del child[name]


def _read_children(value: Any) -> Any:
    if isinstance(value, Mapping):
        return schedule_from_dict(value)
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return [_read_children(one) for one in value]
    return value
