"""Optimizers that divide by a running size of the gradient: RMSprop, Adagrad, Adadelta, Adafactor."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import BeforeValidator, Field

from layered_lr.optimizers.base import EpsPair, FusedOptimizer, Optimizer
from layered_lr.scalars import unwrap_scalar
from layered_lr.validation import Flag, NonNegative, Probability, value_class

NonPositive = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, le=0)]
AtLeastOne = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=1)]


@value_class
class RMSprop(Optimizer):
    """RMSprop as ``torch.optim.RMSprop``: the formula and the defaults are torch's.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        alpha: Decay of the running mean of the gradient's square, 0 to 1 (torch accepts more, and then gives NaN).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        momentum: Factor of the running sum of updates, >= 0; with 0 there is no running sum.
        centered: Divide by the gradient's standard deviation instead of its root mean square.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.RMSprop(lr=1e-2, momentum=0.9).alpha
        0.99
    """

    lr: NonNegative = 1e-2
    alpha: Probability = field(default=0.99, kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    momentum: NonNegative = field(default=0.0, kw_only=True)
    centered: Flag = field(default=False, kw_only=True)


@value_class
class Adagrad(FusedOptimizer):
    """Adagrad as ``torch.optim.Adagrad``: the formula and the defaults are torch's.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        lr_decay: Update ``t`` (0-based) of a parameter takes ``rate / (1 + t * lr_decay)``, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        initial_accumulator_value: First value of the running sum of squares, >= 0.
        eps: Added to the root of that sum, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.
        fused: torch only, for speed: do the whole update in one kernel; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Adagrad(lr=1e-2, lr_decay=1e-3).eps
        1e-10
    """

    lr: NonNegative = 1e-2
    lr_decay: NonNegative = field(default=0.0, kw_only=True)
    initial_accumulator_value: NonNegative = field(default=0.0, kw_only=True)
    eps: NonNegative = field(default=1e-10, kw_only=True)


@value_class
class Adadelta(Optimizer):
    """Adadelta as ``torch.optim.Adadelta``: the formula and the defaults are torch's.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        rho: Decay of the running means of the squares of gradient and update, 0 to 1.
        eps: Added to both mean squares, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Adadelta().lr
        1.0
    """

    lr: NonNegative = 1.0
    rho: Probability = field(default=0.9, kw_only=True)
    eps: NonNegative = field(default=1e-6, kw_only=True)


@value_class
class Adafactor(Optimizer):
    """Adafactor as ``torch.optim.Adafactor``: the formula and the defaults are torch's.

    From https://arxiv.org/abs/1804.04235. Of a matrix it keeps the mean squares of rows and columns instead of those of
    all elements. The step is ``min(rate, 1 / sqrt(t))`` times the root mean square of the parameter, but at least
    ``eps[1]``; ``t`` counts the parameter's updates from 1. torch has it from release 2.5 on.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        beta2_decay: In update ``t`` the mean squares take ``t ** beta2_decay`` of the new square; <= 0.
        eps: The least root mean square of the gradient, and the least one of the parameter, each >= 0. None for the
            first is the smallest step of the dtype at 1.
        d: Updates whose root mean square is larger are scaled down to it, >= 1.
        weight_decay: Decoupled: each update takes ``rate * weight_decay`` of the weights off them, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Adafactor(lr=1e-2, weight_decay=0.0).beta2_decay
        -0.8
    """

    lr: NonNegative = 1e-2
    beta2_decay: NonPositive = field(default=-0.8, kw_only=True)
    eps: EpsPair = field(default=(None, 1e-3), kw_only=True)
    d: AtLeastOne = field(default=1.0, kw_only=True)
    weight_decay: NonNegative = field(default=0.0, kw_only=True)
