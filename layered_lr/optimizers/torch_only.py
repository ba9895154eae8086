"""Optimizers that only torch has: SparseAdam needs sparse gradients, LBFGS calls the model several times an update."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from layered_lr.optimizers.base import Betas, Finite, Optimizer
from layered_lr.validation import Positive, PositiveInt, value_class


@value_class
class SparseAdam(Optimizer):
    """Adam for sparse gradients as ``torch.optim.SparseAdam``: it updates only the rows that have a gradient.

    torch only: OneFlow has no sparse gradients. Give it the embeddings with ``sparse=True``, and all other parameters
    another optimizer, because it refuses dense gradients.

    Args:
        lr: The rate of groups without their own ``lr``, > 0.
        betas: Decay of the running mean of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the mean square, > 0.
        weight_decay: Must be 0: torch's SparseAdam has none.
        maximize: Follow the gradient up instead of down.
        foreach: Must be None or False: torch's SparseAdam has only one implementation.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.AdamW(3e-4), groups=[ll.Group("embed", optimizer=ll.SparseAdam(lr=1e-3))])
        >>> spec.groups[0].optimizer.eps
        1e-08
    """

    __lacks__: ClassVar[tuple[str, ...]] = ("weight_decay", "foreach")

    lr: Positive = 1e-3
    betas: Betas = field(default=(0.9, 0.999), kw_only=True)
    eps: Positive = field(default=1e-8, kw_only=True)


@value_class
class LBFGS(Optimizer):
    """L-BFGS as ``torch.optim.LBFGS``: the formula and the defaults are torch's.

    torch only, and only with ``compile``, in a loop of your own: ``optimizer.step(closure)`` calls the closure several
    times for each update. It takes all parameters as one vector, so a spec with it has no groups and no phases.

    Args:
        lr: The length of the steps, > 0.
        max_iter: The most iterations of an update, >= 1.
        max_eval: The most calls of the closure in an update, >= 1; None is ``max_iter * 1.25``.
        tolerance_grad: An update ends where the largest gradient is smaller.
        tolerance_change: An update ends where the parameters, or the loss, change by less.
        history_size: How many steps it remembers, >= 1.
        line_search_fn: ``"strong_wolfe"``, or None for steps of the length ``lr``.
        weight_decay: Must be 0: torch's LBFGS has none.
        maximize: Must be False: older releases of torch only minimize.
        foreach: Must be None or False: torch's LBFGS has only one implementation.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> ll.LBFGS(line_search_fn="strong_wolfe").history_size
        100
    """

    __lacks__: ClassVar[tuple[str, ...]] = ("weight_decay", "maximize", "foreach")

    lr: Positive = 1.0
    max_iter: PositiveInt = field(default=20, kw_only=True)
    max_eval: PositiveInt | None = field(default=None, kw_only=True)
    tolerance_grad: Finite = field(default=1e-7, kw_only=True)
    tolerance_change: Finite = field(default=1e-9, kw_only=True)
    history_size: PositiveInt = field(default=100, kw_only=True)
    line_search_fn: Literal["strong_wolfe"] | None = field(default=None, kw_only=True)
