"""The settings that every optimizer has, and the kinds of numbers that optimizers take."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, ClassVar

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


def read_numbers(value: object, count: int) -> tuple[float, ...]:
    """Return so many finite numbers; an empty tuple if ``value`` is anything else."""
    given = list(map(unwrap_scalar, value)) if isinstance(value, list | tuple) else []
    numbers = [
        float(number)
        for number in given
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < float("inf")
    ]
    return tuple(numbers) if len(numbers) == len(given) == count else ()


def make_numbers_check(
    name: str, count: int, is_allowed: Callable[..., bool], allowed: str
) -> Callable[[object], tuple[float, ...]]:
    """Make the check of a setting that is several numbers.

    Args:
        name: The setting's name.
        count: How many numbers it is.
        is_allowed: Whether they are allowed together; is given each of them.
        allowed: What is allowed, in words.
    """

    def check(value: object) -> tuple[float, ...]:
        numbers = read_numbers(value, count)
        if not numbers or not is_allowed(*numbers):
            raise SpecError(f"{name}={shown(value)}: must be {allowed}.")
        return numbers

    return check


def _check_eps_pair(value: object) -> tuple[float | None, float]:
    pair = list(value) if isinstance(value, list | tuple) else []
    first_is_none = len(pair) == 2 and (pair[0] is None or pair[0] == "none")
    numbers = read_numbers([0.0, pair[1]] if first_is_none else pair, 2)
    if not numbers or min(numbers) < 0:
        raise SpecError(
            f"eps={shown(value)}: must be two numbers >= 0, such as (1e-30, 1e-3). The first may be None, or 'none' in "
            "TOML: the smallest step of the dtype at 1."
        )
    return None if first_is_none else numbers[0], numbers[1]


EpsPair = Annotated[tuple[float | None, float], BeforeValidator(_check_eps_pair)]
Etas = Annotated[
    tuple[float, float],
    BeforeValidator(
        make_numbers_check(
            "etas", 2, lambda less, more: 0 < less < 1 < more, "two numbers, 0 < first < 1 < second, such as (0.5, 1.2)"
        )
    ),
]
StepSizes = Annotated[
    tuple[float, float],
    BeforeValidator(
        make_numbers_check(
            "step_sizes",
            2,
            lambda least, most: 0 <= least <= most,
            "two numbers, 0 <= first <= second, such as (1e-6, 50)",
        )
    ),
]
Coefficients = Annotated[
    tuple[float, float, float],
    BeforeValidator(
        make_numbers_check(
            "ns_coefficients", 3, lambda *_: True, "three finite numbers, such as (3.4445, -4.775, 2.0315)"
        )
    ),
]


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
    __lacks__: ClassVar[tuple[str, ...]] = ()  # which of the settings below torch's optimizer does not have

    lr: NonNegative
    weight_decay: NonNegative = field(default=0.0, kw_only=True)
    maximize: Flag = field(default=False, kw_only=True)
    foreach: Flag | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in self.__lacks__:
            if getattr(self, name):
                what = type(self).__name__
                raise SpecError(
                    f"{what}({name}={getattr(self, name)!r}): {what} has no {name}, in torch too. Leave it out, or use "
                    "another optimizer."
                )
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
