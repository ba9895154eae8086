"""SGD, and LARS, which is SGD at a rate for each array."""

from __future__ import annotations

from dataclasses import field

from layered_lr.errors import SpecError
from layered_lr.optimizers.base import Finite, FusedOptimizer, Optimizer
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class SGD(FusedOptimizer):
    """Stochastic gradient descent as ``torch.optim.SGD``: the formula and the defaults are torch's.

    With ``g = gradient + weight_decay * p``: ``buf = momentum * buf + (1 - dampening) * g`` (first update:
    ``buf = g``), then ``p -= rate * buf``, or ``p -= rate * (g + momentum * buf)`` with ``nesterov``.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        momentum: Factor of the running sum of gradients, >= 0; 0 keeps none.
        dampening: What the running sum leaves out of each gradient but the first one.
        weight_decay: L2 penalty, coupled (added to the gradient), >= 0.
        nesterov: Look ahead by one momentum step; needs ``momentum > 0`` and ``dampening == 0``.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.
        fused: See ``FusedOptimizer``.

    Raises:
        SpecError: A value out of its bounds, or ``nesterov`` without ``momentum`` or with ``dampening``.
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
    """Layer-wise adaptive rate scaling: SGD at a rate for each array, from its norm and its gradient's.

    With ``trust = trust_coefficient * |p| / (|gradient| + weight_decay * |p| + eps)`` (1 where a norm is 0) and
    ``g = trust * (gradient + weight_decay * p)``, as in ``SGD``: ``buf = momentum * buf + (1 - dampening) * g``,
    ``p -= rate * buf``. From https://arxiv.org/abs/1708.03888, algorithm 1; the rate multiplies after the momentum
    as in torch's SGD (the paper has it inside: the same where the rate is constant).

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        momentum: Factor of the running sum, >= 0; 0 keeps none.
        dampening: What the running sum leaves out of each gradient but the first one.
        weight_decay: Coupled, and part of the trust ratio, >= 0.
        nesterov: Look ahead by one momentum step; needs ``momentum > 0`` and ``dampening == 0``.
        trust_coefficient: How far an array may move, as a fraction of its norm, >= 0.
        eps: Keeps the trust ratio finite, >= 0.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds, or ``nesterov`` without ``momentum`` or with ``dampening``.
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
    """Refuse what torch refuses.

    Raises:
        SpecError: ``nesterov`` without ``momentum`` or with ``dampening``.
    """
    what = type(optimizer).__name__
    if optimizer.nesterov and optimizer.momentum == 0:
        raise SpecError(f"{what}(nesterov=True, momentum=0.0): nesterov needs momentum > 0, such as momentum=0.9.")
    if optimizer.nesterov and optimizer.dampening != 0:
        raise SpecError(f"{what}(nesterov=True, dampening={optimizer.dampening:g}): nesterov needs dampening=0.")
