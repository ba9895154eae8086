"""ASGD and Rprop: optimizers that take the step's size from other things than a mean of gradients."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from layered_lr.optimizers.base import Etas, Optimizer, StepSizes
from layered_lr.validation import NonNegative, value_class


@value_class
class ASGD(Optimizer):
    """Averaged SGD as ``torch.optim.ASGD``: the formula and the defaults are torch's.

    Update ``t`` (1-based) of a parameter is ``p -= eta * (lambd * p + gradient + weight_decay * p)``, where ``eta`` was
    computed in the update before as ``rate / (1 + lambd * rate * (t - 1)) ** alpha``. So each rate of a schedule acts
    one update later, as in torch. The average ``ax`` is kept beside the weights, in the optimizer's state; from update
    ``t0`` on it averages.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        lambd: Decay of the weights and of the rate, >= 0.
        alpha: Power of the rate's decay, >= 0.
        t0: The update at which averaging begins, >= 0.
        weight_decay: L2 penalty, coupled, >= 0.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.ASGD(t0=1000).lambd
        0.0001
    """

    lr: NonNegative = 1e-2
    lambd: NonNegative = field(default=1e-4, kw_only=True)
    alpha: NonNegative = field(default=0.75, kw_only=True)
    t0: NonNegative = field(default=1e6, kw_only=True)


@value_class
class Rprop(Optimizer):
    """Resilient backpropagation as ``torch.optim.Rprop``: the formula and the defaults are torch's.

    Each element has a step of its own, which grows while its gradient keeps its sign and shrinks when the sign changes.
    The rate is only the size of the first step: what a schedule does after a parameter's first update has no effect, as
    in torch.

    Args:
        lr: The size of the first step of groups without their own ``lr``, >= 0.
        etas: Factors by which a step shrinks and grows: the first in (0, 1), the second > 1.
        step_sizes: The least and the largest step, >= 0.
        weight_decay: Must be 0: torch's Rprop has none.
        maximize: Follow the gradient up instead of down.
        foreach: torch only, for speed: update many parameters in one call; None lets torch choose.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.Rprop(etas=(0.5, 1.1)).step_sizes
        (1e-06, 50.0)
    """

    __lacks__: ClassVar[tuple[str, ...]] = ("weight_decay",)

    lr: NonNegative = 1e-2
    etas: Etas = field(default=(0.5, 1.2), kw_only=True)
    step_sizes: StepSizes = field(default=(1e-6, 50.0), kw_only=True)
