"""Muon, whose update of a matrix is (nearly) orthogonal."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from layered_lr.optimizers.base import Coefficients, Optimizer
from layered_lr.scalars import unwrap_scalar
from layered_lr.validation import Flag, NonNegative, value_class

AdjustLr = Literal["original", "match_rms_adamw", "spectral_unclamped"]
NsSteps = Annotated[int, BeforeValidator(unwrap_scalar), Field(strict=True, ge=0, lt=100)]


@value_class
class Muon(Optimizer):
    """Muon as ``torch.optim.Muon``: the formula and the defaults are torch's.

    From https://kellerjordan.github.io/posts/muon.

    It takes matrices only. Give biases, norms and embeddings to another optimizer: make that one the spec's, and Muon
    that of the groups of matrices, ``Group(..., optimizer=Muon(...))``.

    With ``m = momentum * m + (1 - momentum) * gradient``, and ``u`` the same mean of ``gradient`` and ``m``
    (``nesterov``) or ``m`` itself, each update is ``p -= rate * weight_decay * p`` and then
    ``p -= rate * ratio * orthogonal(u)``. The orthogonal matrix is computed by ``ns_steps`` steps of an iteration of
    Newton and Schulz in bfloat16, as in torch. So its last digit, 1 part in 256, depends on the order of sums: on the
    processor, and on the framework.

    Args:
        lr: The rate of groups without their own ``lr``, >= 0.
        weight_decay: Decoupled: each update takes ``rate * weight_decay`` of the weights off them, >= 0.
        momentum: Decay of the running mean of gradients, >= 0.
        nesterov: Look ahead by one momentum step.
        ns_coefficients: The three coefficients of the iteration's polynomial.
        eps: The least norm that a matrix is divided by before the iteration, >= 0.
        ns_steps: Steps of the iteration, 0 to 99.
        adjust_lr_fn: The ratio for a matrix of ``a`` rows and ``b`` columns: None and ``"original"`` is
            ``sqrt(max(1, a / b))``, ``"match_rms_adamw"`` is ``0.2 * sqrt(max(a, b))``, ``"spectral_unclamped"`` is
            ``sqrt(a / b)``.
        flatten: Take a parameter of more than two dimensions, such as a convolution's, as the matrix of its first
            dimension and all others together. torch's has no such option: there the library's own class updates.
        maximize: Must be False: torch's Muon only minimizes.
        foreach: Must be None or False: torch's Muon updates parameters one by one.

    Raises:
        SpecError: A value is out of its bounds.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.AdamW(3e-4), groups=[ll.Group("blocks.*.weight", optimizer=ll.Muon(lr=0.02))])
        >>> spec.groups[0].optimizer.momentum
        0.95
    """

    __lacks__: ClassVar[tuple[str, ...]] = ("maximize", "foreach")

    lr: NonNegative = 1e-3
    weight_decay: NonNegative = field(default=0.1, kw_only=True)
    momentum: NonNegative = field(default=0.95, kw_only=True)
    nesterov: Flag = field(default=True, kw_only=True)
    ns_coefficients: Coefficients = field(default=(3.4445, -4.775, 2.0315), kw_only=True)
    eps: NonNegative = field(default=1e-7, kw_only=True)
    ns_steps: NsSteps = field(default=5, kw_only=True)
    adjust_lr_fn: AdjustLr | None = field(default=None, kw_only=True)
    flatten: Flag = field(default=False, kw_only=True)
