"""SGD, and LARS, which is SGD with a rate of its own for each parameter array."""

from __future__ import annotations

from dataclasses import field

from layered_lr.errors import SpecError
from layered_lr.optimizers.base import Finite, FusedOptimizer, Optimizer
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class SGD(FusedOptimizer):
    """Stochastic gradient descent as ``torch.optim.SGD``: the formula and the defaults are torch's.

    With ``g = gradient + weight_decay * p``, each update is ``buf = momentum * buf + (1 - dampening) * g`` (in the
    first update ``buf = g``) and then ``p -= rate * buf``; with ``nesterov``, ``p -= rate * (g + momentum * buf)``.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        momentum: Factor of the running sum of gradients, >= 0; with 0 there is no running sum.
        dampening: The part of each gradient that is not added to the running sum, except for the first gradient.
        weight_decay: L2 penalty, coupled (added to the gradient), >= 0.
        nesterov: Look ahead by one momentum step; needs ``momentum > 0`` and ``dampening == 0``.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.
        fused: torch only, for speed: do the whole update in one kernel; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds, or ``nesterov`` comes without ``momentum`` or with ``dampening``.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(lr=0.1, momentum=0.9), groups=[ll.Group("backbone", lr_scale=0.1)])
        >>> spec.optimizer.momentum
        0.9
    """

    lr: NonNegative = 1e-3
    momentum: NonNegative = field(default=0.0, kw_only=True)
    dampening: Finite = field(default=0.0, kw_only=True)
    nesterov: Flag = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nesterov(self)


@value_class
class LARS(Optimizer):
    """Layer-wise adaptive rate scaling: SGD with a rate for each array, from the norms of the array and its gradient.

    With ``trust = trust_coefficient * |p| / (|gradient| + weight_decay * |p| + eps)`` (1 if a norm is 0) and
    ``g = trust * (gradient + weight_decay * p)``, each update is ``buf = momentum * buf + (1 - dampening) * g``, then
    ``p -= rate * buf``. From https://arxiv.org/abs/1708.03888, algorithm 1. There the rate multiplies ``g``; here it
    multiplies ``buf``, as in torch's SGD, which is the same while the rate is constant.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        momentum: Factor of the running sum of gradients, >= 0; with 0 there is no running sum.
        dampening: The part of each gradient that is not added to the running sum, except for the first gradient.
        weight_decay: L2 penalty, coupled (added to the gradient), and part of the trust ratio, >= 0.
        nesterov: Look ahead by one momentum step; needs ``momentum > 0`` and ``dampening == 0``.
        trust_coefficient: How far an array may move in an update of rate 1, as a fraction of its norm, >= 0.
        eps: Added to the divisor of the trust ratio, so that it stays finite, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds, or ``nesterov`` comes without ``momentum`` or with ``dampening``.

    Example:
        >>> import layered_lr as ll
        >>> ll.LARS(lr=2.0, weight_decay=1e-4).trust_coefficient
        0.001
    """

    lr: NonNegative = 1.0
    momentum: NonNegative = field(default=0.9, kw_only=True)
    dampening: Finite = field(default=0.0, kw_only=True)
    nesterov: Flag = field(default=False, kw_only=True)
    trust_coefficient: NonNegative = field(default=1e-3, kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nesterov(self)


def check_nesterov(optimizer: SGD | LARS) -> None:
    """Refuse Nesterov momentum where torch refuses it.

    Raises:
        SpecError: ``nesterov`` comes without ``momentum`` or with ``dampening``.
    """
    what = type(optimizer).__name__
    if optimizer.nesterov and optimizer.momentum == 0:
        raise SpecError(f"{what}(nesterov=True, momentum=0.0): nesterov needs momentum > 0, such as momentum=0.9.")
    if optimizer.nesterov and optimizer.dampening != 0:
        raise SpecError(f"{what}(nesterov=True, dampening={optimizer.dampening:g}): nesterov needs dampening=0.")
