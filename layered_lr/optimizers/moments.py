"""Adam and optimizers like it: they keep running means of the gradient and of its size."""

from __future__ import annotations

from dataclasses import field

from layered_lr.optimizers.base import Betas, FusedOptimizer, Optimizer
from layered_lr.validation import Flag, NonNegative, value_class


@value_class
class Adam(FusedOptimizer):
    """Adam as ``torch.optim.Adam``: the formula and the defaults are torch's (https://arxiv.org/abs/1412.6980).

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled (added to the gradient) unless ``decoupled_weight_decay``, >= 0.
        amsgrad: Divide by the largest mean square so far (https://openreview.net/forum?id=ryQu7f-RZ).
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``, as ``AdamW`` does.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.
        fused: torch only, for speed: do the whole update in one kernel; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Adam(lr=1e-3, betas=(0.9, 0.98)).eps
        1e-08
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
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: Decoupled: each update takes ``rate * weight_decay`` of the weights off them, >= 0.
        amsgrad: Divide by the largest mean square so far.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.
        fused: torch only, for speed: do the whole update in one kernel; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.AdamW(lr=3e-4).weight_decay
        0.01
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
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled unless ``decoupled_weight_decay``, >= 0.
        momentum_decay: How fast the momentum rises to ``betas[0]`` in the first updates, >= 0.
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.NAdam(lr=2e-3).momentum_decay
        0.004
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
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: L2 penalty, coupled unless ``decoupled_weight_decay``, >= 0.
        decoupled_weight_decay: Decay the weights themselves by ``rate * weight_decay``.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.RAdam(weight_decay=0.1, decoupled_weight_decay=True).lr
        0.001
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)
    decoupled_weight_decay: Flag = field(default=False, kw_only=True)


@value_class
class Adamax(Optimizer):
    """Adam with a running maximum of the gradient instead of its mean square, as ``torch.optim.Adamax``.

    The formula and the defaults are torch's.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient, and of its running maximum, each in [0, 1).
        eps: Added to the gradient's size, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Adamax().lr
        0.002
    """

    lr: NonNegative = 2e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-8, kw_only=True)


@value_class
class LAMB(Optimizer):
    """Adam with a rate for each array, from the norms of the array and its update.

    From https://arxiv.org/abs/1904.00962, algorithm 2. With Adam's bias-corrected means ``m`` and ``v``, each update is
    ``update = m / (sqrt(v) + eps) + weight_decay * p`` and then ``p -= rate * |p| / |update| * update`` (the ratio is 1
    if one of the norms is 0).

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, >= 0.
        weight_decay: Decoupled: added to the update, whose norm is in the ratio, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.LAMB(lr=6e-3).weight_decay
        0.01
    """

    lr: NonNegative = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: NonNegative = field(default=1e-6, kw_only=True)
    weight_decay: NonNegative = field(default=1e-2, kw_only=True)


@value_class
class Lion(Optimizer):
    """Lion (evolved sign momentum): https://arxiv.org/abs/2302.06675, algorithm 2.

    With ``u = sign(beta1 * m + (1 - beta1) * gradient)``, each update is ``p -= rate * (u + weight_decay * p)`` and
    then ``m = beta2 * m + (1 - beta2) * gradient``.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        betas: The part of the momentum ``m`` in the update, and the decay of ``m``, each in [0, 1).
        weight_decay: Decoupled: each update takes ``rate * weight_decay`` of the weights off them, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Lion(lr=1e-4, weight_decay=0.1).betas
        (0.9, 0.99)
    """

    lr: NonNegative = 1e-4
    betas: Betas = field(default=(0.9, 0.99), kw_only=True)
