"""Optimizers as data: names, defaults and bounds are torch's."""

from __future__ import annotations

from abc import ABC
from dataclasses import field

from layered_lr.errors import SpecError
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class Optimizer(ABC):
    """What every optimizer has.

    Args:
        lr: The rate of groups that have none of their own; dimensionless, per update, >= 0.
    """

    lr: NonNegative


@value_class
class SGD(Optimizer):
    """Stochastic gradient descent as ``torch.optim.SGD``: the formula and the defaults are torch's.

    With ``g = gradient + weight_decay * p``: ``buf = momentum * buf + g`` (first update: ``buf = g``), then
    ``p -= rate * buf``, or ``p -= rate * (g + momentum * buf)`` with ``nesterov``.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        momentum: Factor of the running sum of gradients, >= 0; 0 keeps none.
        weight_decay: L2 penalty, coupled (added to the gradient), >= 0.
        nesterov: Look ahead by one momentum step; needs ``momentum > 0``.

    Raises:
        SpecError: A value out of its bounds, or ``nesterov`` without ``momentum``.
    """

    lr: NonNegative = 1e-3
    momentum: NonNegative = field(default=0.0, kw_only=True)
    weight_decay: NonNegative = field(default=0.0, kw_only=True)
    nesterov: Flag = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise SpecError("SGD(nesterov=True, momentum=0.0): nesterov needs momentum > 0, such as momentum=0.9.")
