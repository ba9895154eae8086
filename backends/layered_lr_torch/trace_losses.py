"""torch's losses, written with functions that a traced model has operators for; see ``trace_composites``.

The formulas are those of torch 2's documentation. Reductions are torch's numbers: 0 is none, 1 the mean, 2 the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from layered_lr_torch.torch_types import Tensor

_MEAN, _SUM = 1, 2


def _reduce(losses: Tensor, reduction: int) -> Tensor:
    return losses.mean() if reduction == _MEAN else losses.sum() if reduction == _SUM else losses


def _of_difference(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def composite(x: Tensor, target: Tensor, reduction: int = _MEAN, *settings: float, **named: float) -> Tensor:
        return _reduce(formula(x - target, *settings, **named), reduction)

    return composite


def _smooth_l1(difference: Tensor, beta: float = 1.0) -> Tensor:
    size = difference.abs()
    if beta == 0:
        return size
    return torch.where(size < beta, 0.5 * difference * difference / beta, size - 0.5 * beta)


def _huber(difference: Tensor, delta: float = 1.0) -> Tensor:
    size = difference.abs()
    return torch.where(size <= delta, 0.5 * difference * difference, delta * (size - 0.5 * delta))


def _soft_margin(x: Tensor, target: Tensor, reduction: int = _MEAN) -> Tensor:
    return _reduce(F.softplus(-target * x), reduction)


def _binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = _MEAN,
) -> Tensor:
    log_sigmoid = F.logsigmoid(x)
    if pos_weight is not None:
        log_sigmoid = ((pos_weight - 1) * target + 1) * log_sigmoid
    losses = (1 - target) * x - log_sigmoid
    return _reduce(losses if weight is None else losses * weight, reduction)


def _binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = _MEAN) -> Any:
    """Of probabilities. Each logarithm is at least -100, and the gradient's divisor at least 1e-12, as in torch."""
    if target.requires_grad:
        return NotImplemented
    values = (target - 1) * torch.clamp(torch.log1p(-x), min=-100) - target * torch.clamp(torch.log(x), min=-100)
    slopes = (x - target) / torch.clamp((1 - x) * x, min=1e-12)
    losses = with_gradient_of(x * slopes.detach(), values)
    return _reduce(losses if weight is None else losses * weight, reduction)


def with_gradient_of(x: Tensor, values: Tensor) -> Tensor:
    """Give the numbers of ``values`` with the gradient of ``x``; a recorder records it as one operator."""
    if has_torch_function((x, values)):
        recorded: Tensor = handle_torch_function(with_gradient_of, (x, values), x, values)
        return recorded
    return x + (values - x).detach()


def _kl_div(x: Tensor, target: Tensor, reduction: int = _MEAN, log_target: bool = False) -> Tensor:
    if log_target:
        return _reduce(target.exp() * (target - x), reduction)
    is_positive = target > 0  # 0 log 0 is 0
    entropy = torch.where(is_positive, target * torch.where(is_positive, target, 1.0).log(), 0.0)
    return _reduce(entropy - target * x, reduction)


def _poisson(x: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int) -> Any:
    if full:
        return NotImplemented
    return _reduce(x.exp() - target * x if log_input else x - target * (x + eps).log(), reduction)


def _nll(x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = _MEAN, ignore: int = -100) -> Tensor:
    """Of log-probabilities, shape (N, classes, ...), and class numbers, shape (N, ...)."""
    counts = target != ignore
    known = torch.where(counts, target, 0)
    picked = -torch.gather(x, 1, known.unsqueeze(1)).squeeze(1)
    weights = _weigh(x, known, counts, weight)
    losses = torch.where(counts, picked * weights, 0.0)
    return losses.sum() / weights.sum() if reduction == _MEAN else _reduce(losses, reduction)


def _weigh(x: Tensor, known: Tensor, counts: Tensor, weight: Tensor | None) -> Tensor:
    """The weight of each target, 0 where it does not count."""
    if weight is None:
        return counts.to(x.dtype)
    own = weight.index_select(0, known.reshape(-1)).reshape(known.shape)
    return torch.where(counts, own, 0.0)


def _cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = _MEAN,
    ignore: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    if x.dim() < 2:
        return NotImplemented
    log_p, classes = F.log_softmax(x, 1), x.shape[1]
    shape = [1, classes, *[1] * (x.dim() - 2)]
    if target.is_floating_point():
        shares = target * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else target
        losses = -(log_p * (shares if weight is None else shares * weight.reshape(shape))).sum(1)
        return _reduce(losses, reduction)
    if not label_smoothing:
        return _nll(log_p, target, weight, reduction, ignore)
    counts = target != ignore
    known = torch.where(counts, target, 0)
    weights = _weigh(x, known, counts, weight)
    picked = -torch.gather(log_p, 1, known.unsqueeze(1)).squeeze(1) * weights
    spread = -(log_p if weight is None else log_p * weight.reshape(shape)).sum(1)
    losses = torch.where(counts, (1 - label_smoothing) * picked + label_smoothing / classes * spread, 0.0)
    return losses.sum() / weights.sum() if reduction == _MEAN else _reduce(losses, reduction)


def _one_hot(x: Tensor, num_classes: int = -1) -> Any:
    if num_classes < 1:
        return NotImplemented
    rows = torch.eye(num_classes, dtype=torch.int64)  # looked up, so that a number out of range is found
    return rows.index_select(0, x.reshape(-1)).reshape(*x.shape, num_classes)


def _broadcast(*tensors: Any) -> Any:
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], tuple | list) else tensors
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in given))
    return tuple(tensor if tensor.shape == shape else tensor.expand(shape) for tensor in given)


LOSSES: Final[dict[str, Callable[..., Any]]] = {
    "mse_loss": _of_difference(lambda difference: difference * difference),
    "l1_loss": _of_difference(lambda difference: difference.abs()),
    "smooth_l1_loss": _of_difference(_smooth_l1),
    "huber_loss": _of_difference(_huber),
    "soft_margin_loss": _soft_margin,
    "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
    "binary_cross_entropy": _binary_cross_entropy,
    "kl_div": _kl_div,
    "poisson_nll_loss": _poisson,
    **dict.fromkeys(("nll_loss", "nll_loss_nd", "nll_loss2d"), _nll),
    "cross_entropy_loss": _cross_entropy,
    "one_hot": _one_hot,
    "broadcast_tensors": _broadcast,
}
