"""What every optimizer has, and the numbers that optimizers are made of."""

from __future__ import annotations

from abc import ABC
from dataclasses import field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from layered_lr.errors import SpecError
from layered_lr.validation import Flag, NonNegative, plain_number, value_class

Finite = Annotated[float, BeforeValidator(plain_number), Field(strict=True, allow_inf_nan=False)]


def _betas(value: Any) -> tuple[float, float]:
    numbers = tuple(map(plain_number, value)) if isinstance(value, list | tuple) else ()
    good = len(numbers) == 2 and all(
        isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1 for beta in numbers
    )
    if not good:
        raise SpecError(f"betas={value!r}: must be two numbers, each >= 0 and < 1, such as (0.9, 0.999).")
    return float(numbers[0]), float(numbers[1])


Betas = Annotated[tuple[float, float], BeforeValidator(_betas)]


@value_class
class Optimizer(ABC):
    """What every optimizer has.

    Args:
        lr: The rate of groups that have none of their own; dimensionless, per update, >= 0.
        weight_decay: Strength of the pull towards zero, >= 0; coupled (added to the gradient) or decoupled (taken
            off the weights, times the rate), as each optimizer says.
        maximize: Go up the gradient instead of down.
        foreach: torch only, and only a matter of speed: one call for many parameters; None lets the backend choose.
    """

    lr: NonNegative
    weight_decay: NonNegative = field(default=0.0, kw_only=True)
    maximize: Flag = field(default=False, kw_only=True)
    foreach: Flag | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.foreach and getattr(self, "fused", None):
            raise SpecError(f"{type(self).__name__}(foreach=True, fused=True): only one of them can be true.")

    @property
    def first_momentum(self) -> float | None:
        """What a schedule that drives the momentum moves: ``momentum``, or the first of ``betas``; None without one."""
        betas = getattr(self, "betas", None)
        return betas[0] if betas is not None else getattr(self, "momentum", None)


@value_class
class FusedOptimizer(Optimizer):
    """An optimizer of which torch has a fused implementation.

    Args:
        lr: As in ``Optimizer``.
        weight_decay: As in ``Optimizer``.
        maximize: As in ``Optimizer``.
        foreach: As in ``Optimizer``.
        fused: torch only, and only a matter of speed: the whole update as one kernel; None lets the backend choose.
    """

    fused: Flag | None = field(default=None, kw_only=True)
