"""The settings that every optimizer has, and the kinds of numbers that optimizers take."""

from __future__ import annotations

from abc import ABC
from dataclasses import field
from typing import Annotated

from pydantic import BeforeValidator, Field

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scalars import unwrap_scalar
from layered_lr.validation import Flag, NonNegative, value_class

Finite = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False)]


def _check_betas(value: object) -> tuple[float, float]:
    given = map(unwrap_scalar, value) if isinstance(value, list | tuple) else ()
    betas = [
        float(beta) for beta in given if isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1
    ]
    if not isinstance(value, list | tuple) or not len(betas) == len(value) == 2:
        raise SpecError(f"betas={shown(value)}: must be two numbers, each >= 0 and < 1, such as (0.9, 0.999).")
    return betas[0], betas[1]


Betas = Annotated[tuple[float, float], BeforeValidator(_check_betas)]


@value_class
class Optimizer(ABC):
    """The settings that every optimizer has.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        weight_decay: How strongly weights are pulled towards zero, >= 0. Each optimizer says whether the decay is
            coupled (added to the gradient) or decoupled (``rate * weight_decay`` of the weights is taken off them).
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Example:
        >>> import layered_lr as ll
        >>> optimizer = ll.AdamW(lr=3e-4, weight_decay=0.05)
        >>> isinstance(optimizer, ll.Optimizer), optimizer.betas
        (True, (0.9, 0.999))
    """

    __kind__ = "optimizer"

    lr: NonNegative
    weight_decay: NonNegative = field(default=0.0, kw_only=True)
    maximize: Flag = field(default=False, kw_only=True)
    foreach: Flag | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.foreach and getattr(self, "fused", None):
            raise SpecError(
                f"{type(self).__name__}(foreach=True, fused=True): only one of them can be true. Leave one out."
            )

    @property
    def first_momentum(self) -> float | None:
        """What a schedule with ``cycle_momentum`` changes: ``momentum``, or the first of ``betas``, or None."""
        betas = getattr(self, "betas", None)
        return betas[0] if betas is not None else getattr(self, "momentum", None)


@value_class
class FusedOptimizer(Optimizer):
    """An optimizer that torch can also run as one fused kernel.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        weight_decay: How strongly weights are pulled towards zero, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.
        fused: torch only, for speed: do the whole update in one kernel; None lets torch choose.
    """

    fused: Flag | None = field(default=None, kw_only=True)
