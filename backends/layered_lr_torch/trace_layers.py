"""Layers of torch that the vocabulary of a traced model has no operator for: attention, norms, interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from layered_lr.models.norm_constants import find_kept_share
from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_names import Refusal

Composite = Callable[..., Any]


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Attention as torch's documentation writes it out."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (_repeat_heads(each, repeats) for each in (key, value))
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        is_choice = attn_mask.dtype == torch.bool
        scores = torch.where(attn_mask, scores, -math.inf) if is_choice else scores + attn_mask
    hidden = None if attn_mask is None or is_causal else _find_hidden(attn_mask, scores)
    weights = torch.softmax(scores if hidden is None else torch.where(hidden, 0, scores), -1)
    weights = weights if hidden is None else torch.where(hidden, 0, weights)
    return torch.dropout(weights, dropout_p, True) @ value


def _find_hidden(mask: Tensor, scores: Tensor) -> Tensor | None:
    """Find the queries that a mask hides from all keys, whose weights torch makes zero; None if there are none."""
    seen = mask if mask.dtype == torch.bool else mask > -math.inf
    if not isinstance(mask, FakeTensor) and seen.any(-1).all():
        return None
    return seen.to(scores.dtype).amax(-1, True) == 0


def _repeat_heads(x: Tensor, repeats: int) -> Tensor:
    shape = (*x.shape[:-3], x.shape[-3] * repeats, *x.shape[-2:])
    return x.unsqueeze(-3).expand(*x.shape[:-2], repeats, *x.shape[-2:]).reshape(shape)


def pad_as_asked(count: int) -> Composite:
    """Make a convolution whose padding may be ``"same"`` or ``"valid"``."""
    function = getattr(torch, f"conv{count}d")

    def composite(
        x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Any:  # fmt: skip
        if padding == "valid":
            return function(x, weight, bias, stride, 0, dilation, groups)
        if padding != "same":
            return NotImplemented
        steps = [dilation] * count if isinstance(dilation, int) else list(dilation) * (count // len(dilation))
        totals = [step * (size - 1) for step, size in zip(steps, weight.shape[2:], strict=True)]
        widths = [width for total in reversed(totals) for width in (total // 2, total - total // 2)]
        return function(F.pad(x, widths), weight, bias, stride, 0, dilation, groups)

    return composite


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of order 1, 2 or infinity."""
    if dtype is not None or ord not in (1, 2, math.inf):
        return NotImplemented
    dim = list(range(x.dim())) if dim is None else dim
    if ord == 1:
        return x.abs().sum(dim, keepdim)
    return root(x.square().sum(dim, keepdim)) if ord == 2 else x.abs().amax(dim, keepdim)


def linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of vectors; of matrices, which an order and two axes mean, only the root of the sum of squares."""
    is_matrix = x.dim() == 2 if dim is None else isinstance(dim, tuple | list) and len(dim) == 2
    if ord is not None and is_matrix:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype) if ord == "fro" else NotImplemented
    return vector_norm(x, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


def root(square: Tensor) -> Tensor:
    """The square root, whose gradient at zero is zero, as that of torch's norms is."""
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), square)


def logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The logarithm of a sum of exponentials, without overflow."""
    highest = x.detach().amax(dim, keepdim=True)
    highest = torch.where(highest.abs() == math.inf, 0, highest)
    total = (x - highest).exp().sum(dim, keepdim=True).log() + highest
    return total if keepdim else total.squeeze(dim)


def batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, variance: Tensor, training: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """Normalise a batch with its own statistics, and write down what becomes of the running ones.

    Constants are as OneFlow's own kernel, which other normalisations of the model have, holds them.
    """
    eps, kept = float(np.float32(eps)), find_kept_share(momentum)
    axes = (0, *range(2, x.dim()))
    shape = (1, -1, *(1 for _ in axes[1:]))
    average = x.mean(axes)
    centred = x - average.reshape(shape)
    scaled = centred * (centred.square().mean(axes).reshape(shape) + eps).rsqrt()
    with torch.no_grad():
        mean.copy_(mean * kept + average * (1 - kept))
        variance.copy_(variance * kept + x.var(axes) * (1 - kept))
    scaled = scaled if weight is None else scaled * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


def instance_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, use_input_stats: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    """Normalise each channel of each image by itself."""
    if mean is not None or not use_input_stats:
        return Refusal(
            "uses an InstanceNorm with track_running_stats=True", "Leave that out, or train on a torch backend."
        )
    axes = tuple(range(2, x.dim()))
    shape = (1, -1, *(1 for _ in axes))
    centred = x - x.mean(axes, keepdim=True)
    scaled = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    if weight is not None:
        scaled = scaled * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """A weight of a direction and a length; of one length for all of it if ``dim`` is -1, as in torch."""
    axes = [axis for axis in range(v.dim()) if dim == -1 or axis != dim % v.dim()]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


def upsample(name: str, rank: int, has_corners: bool) -> Composite:
    """Interpolation as a product with a matrix for each axis, which torch's own function makes of the identity."""
    if name in ("nearest", "nearest_exact", "linear"):
        function, width = getattr(torch._C._nn, f"{'_' * (name == 'nearest_exact')}upsample_{name}1d"), 0
    else:
        function, width = getattr(torch._C._nn, name), 3  # of one axis only: a second one stays as wide as it is

    def matrix(like: Tensor, axis: int, size: Any, corners: tuple[bool, ...], scale: Any) -> Any:
        eye = torch.eye(like.shape[axis], dtype=like.dtype)[None]
        sizes = None if size is None else (size, width) if width else (size,)
        scales = None if scale is None else (scale, 1.0) if width else (scale,)
        if width:
            return function(eye[..., None].repeat(1, 1, 1, width), sizes, *corners, scales)[0, :, :, 1]
        return function(eye, sizes, *corners, scales)[0]

    def composite(x: Tensor, size: Any, *rest: Any, **named: Any) -> Any:
        values = list(rest)
        corners = (bool(values.pop(0) if values else named.pop("align_corners")),) if has_corners else ()
        scales = values.pop(0) if values else named.pop("scale_factors", None)
        if values or named or (size is None) == (scales is None) or x.dim() != rank + 2:
            return NotImplemented
        for place in range(rank):
            axis = place + 2
            weights = matrix(x, axis, size and size[place], corners, scales and scales[place])
            x = (x.transpose(axis, -1) @ weights).transpose(axis, -1)
        return x

    return composite


def rms_norm(x: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """Divide by the root of the mean square of the last axes."""
    axes = list(range(x.dim() - len(normalized_shape), x.dim()))
    least = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * (x.square().mean(axes, keepdim=True) + least).rsqrt()
    made: Tensor = scaled if weight is None else scaled * weight
    return made


def cosine_similarity(x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along an axis."""
    first, second = (each / vector_norm(each, 2, dim, True).clamp(min=eps) for each in (x, y))
    products: Tensor = first * second
    return products.sum(dim)


def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """A product of two inputs with a weight for each pair."""
    made = torch.einsum("bi,oij,bj->bo", x.reshape(-1, x.shape[-1]), weight, y.reshape(-1, y.shape[-1]))
    made = made if bias is None else made + bias
    return made.reshape(*x.shape[:-1], weight.shape[0])
