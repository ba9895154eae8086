"""Adam, and what became of it: optimizers with running means of the gradient and of its size."""

from __future__ import annotations

from dataclasses import field

from layered_lr.optimizers.base import Betas, FusedOptimizer, Optimizer
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class Adam(FusedOptimizer):
    """Adam as ``torch.optim.Adam``: the formula and the defaults are torch's (https://arxiv.org/abs/1412.6980).

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled (added to the gradient) unless ``decoupled_weight_decay``, >= 0.
        amsgrad: Divide by the largest mean square so far (https://openreview.net/forum?id=ryQu7f-RZ).
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``, as ``AdamW`` does.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.
        fused: See ``FusedOptimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    amsgrad: Flag = field(default=False, kw_only=True)
    decoupled_weight_decay: Flag = field(default=False, kw_only=True)


@value_class
class AdamW(FusedOptimizer):
    """AdamW as ``torch.optim.AdamW``: the formula and the defaults are torch's (https://arxiv.org/abs/1711.05101).

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: Decoupled: each update takes ``rate * weight_decay`` of the weights off them, >= 0.
        amsgrad: Divide by the largest mean square so far.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.
        fused: See ``FusedOptimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    weight_decay: NonNegative = field(default=1e-2, kw_only=True)
    amsgrad: Flag = field(default=False, kw_only=True)


@value_class
class NAdam(Optimizer):
    """Adam with Nesterov momentum as ``torch.optim.NAdam``: the formula and the defaults are torch's.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled unless ``decoupled_weight_decay``, >= 0.
        momentum_decay: How the momentum warms up, >= 0.
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 2e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    momentum_decay: NonNegative = field(default=4e-3, kw_only=True)
    decoupled_weight_decay: Flag = field(default=False, kw_only=True)


@value_class
class RAdam(Optimizer):
    """Rectified Adam as ``torch.optim.RAdam``: the formula and the defaults are torch's.

    From https://arxiv.org/abs/1908.03265.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled unless ``decoupled_weight_decay``, >= 0.
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    decoupled_weight_decay: Flag = field(default=False, kw_only=True)


@value_class
class Adamax(Optimizer):
    """Adam with the largest gradient instead of the mean square, as ``torch.optim.Adamax``.

    The formula and the defaults are torch's.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its largest size, each in [0, 1).
        eps: Added to the gradient's size, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 2e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)


@value_class
class LAMB(Optimizer):
    """Adam at a rate for each array, from its norm and its update's: https://arxiv.org/abs/1904.00962, algorithm 2.

    With Adam's bias-corrected means ``m`` and ``v``: ``update = m / (sqrt(v) + eps) + weight_decay * p``, then
    ``p -= rate * |p| / |update| * update`` (the ratio is 1 where either norm is 0).

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: Part of the update, and so of the trust ratio, >= 0.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-6, kw_only=True)
    weight_decay: NonNegative = field(default=1e-2, kw_only=True)


@value_class
class Lion(Optimizer):
    """Evolved sign momentum: https://arxiv.org/abs/2302.06675, algorithm 2.

    ``update = sign(beta1 * m + (1 - beta1) * gradient)``, ``p -= rate * (update + weight_decay * p)``, then
    ``m = beta2 * m + (1 - beta2) * gradient``.

    Args:
        lr: The rate of groups that have none of their own, >= 0.
        betas: Share of the momentum in the update, and its decay, each in [0, 1).
        weight_decay: Decoupled, >= 0.
        maximize: Go up the gradient instead of down.
        foreach: See ``Optimizer``.

    Raises:
        SpecError: A value out of its bounds.
    """

    lr: NonNegative = 1e-4
    betas: Betas = field(default=(0.9, 0.99), kw_only=True)
