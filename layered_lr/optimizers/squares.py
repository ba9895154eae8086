"""Optimizers that divide by a running size of the gradient: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from dataclasses import field

from layered_lr.optimizers.base import FusedOptimizer, Optimizer
from layered_lr.validation import Flag, NonNegative, Probability, value_class


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
