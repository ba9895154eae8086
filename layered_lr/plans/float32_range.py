"""Refuses numbers of a plan that float32, which most weights are held in, has no room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from layered_lr.errors import SpecError
from layered_lr.plans.plan import Plan

LARGEST = (2 - 2**-23) * 2.0**127  # the largest float32


def is_in_float64(plan: Plan) -> bool:
    """Whether all weights have the range of a Python float."""
    return all(parameter.dtype in ("float64", "complex128") for parameter in plan.parameters)


def check_range(plan: Plan) -> None:
    """Refuse hyperparameters and limits of gradients that are too large for the weights.

    torch would fail at the first update or later, and OneFlow would use infinity. ``lr`` alone says nothing: see
    ``LiveRates.rates`` for what schedules and ``lr_scale`` make of it.

    Raises:
        SpecError: One of them, in any phase, is more than float32 can hold, and the weights are not all in float64.
    """
    if is_in_float64(plan):
        return
    for there in plan.phase_plans:
        for group in there.groups:
            for name, value in _list_numbers(asdict(group.optimizer)):
                if name != "lr" and abs(value) > LARGEST:
                    raise SpecError(
                        f"group {group.name!r}: {name}={value:g} is more than the weights' float32 can hold."
                    )
        if (value := there.spec.clip_grad_value or 0.0) > LARGEST:
            raise SpecError(f"clip_grad_value={value:g} is more than the weights' float32 can hold.")


def _list_numbers(settings: dict[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in settings.items():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, float):
                yield name, each
