"""Operators of a traced model with weights: matrices, convolutions, normalisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from layered_lr.models.norm_constants import find_kept_share
from layered_lr.models.one_number import refuse_one_number
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import detach, make_constant
from layered_lr_oneflow.operators.broadcasting import add, add_bias, multiply, subtract
from layered_lr_oneflow.operators.convolutions import convolve
from layered_lr_oneflow.operators.placement import make_shares
from layered_lr_oneflow.runtime import flow

_C = flow._C


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """Multiply matrices; OneFlow aborts on a vector with three or more axes, and on some axes that broadcast."""
    if x.ndim == 1 and y.ndim == 1:
        return (x * y).sum()
    if y.ndim == 1:
        return _matmul(x, y.reshape(-1, 1)).squeeze(-1)
    if x.ndim == 1:
        return _matmul(x.reshape(1, -1), y).squeeze(-2)
    if x.ndim == 2 and y.ndim == 2:
        return _C.matmul(x, y)
    if y.ndim == 2:
        rows = _C.matmul(x.reshape(-1, x.shape[-1]), y)
        return rows.reshape(*x.shape[:-1], y.shape[-1])
    rank = max(x.ndim, y.ndim)
    first, second = ((1,) * (rank - each.ndim) + tuple(each.shape[:-2]) for each in (x, y))
    batch = tuple(max(pair) if min(pair) else 0 for pair in zip(first, second, strict=True))
    x, y = (each if tuple(each.shape[:-2]) == batch else each.expand(*batch, *each.shape[-2:]) for each in (x, y))
    if len(batch) == 1:
        return _C.batch_matmul(x, y)
    flat = (each.reshape(-1, *each.shape[-2:]) for each in (x, y))
    product = _C.batch_matmul(*flat)
    return product.reshape(*batch, x.shape[-2], y.shape[-1])


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    product = _C.matmul(rows, weight, transpose_b=True)
    product = add_bias(product, bias)
    return product if x.ndim == 2 else product.reshape(*x.shape[:-1], weight.shape[0])


def _einsum(equation: str, tensors: tuple[Tensor, ...]) -> Tensor:
    return flow.einsum(equation.replace(" ", ""), *tensors)


_TRANSPOSED = {3: _C.deconv1d, 4: _C.deconv2d, 5: _C.deconv3d}


def _convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...],
    output_padding: tuple[int, ...], groups: int, dilation: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """Convolve backwards, group by group."""
    function = _TRANSPOSED[weight.ndim]
    sizes = (list(stride), list(padding), list(output_padding))
    parts = zip(flow.chunk(x, groups, 1), flow.chunk(weight, groups, 0), strict=True) if groups > 1 else [(x, weight)]
    made = [function(part, its, None, *sizes, 1, list(dilation)) for part, its in parts]
    whole = made[0] if groups == 1 else flow.cat(made, dim=1)
    return add_bias(whole, bias)


def _unfold(
    x: Tensor, kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    return flow.nn.functional.unfold(x, list(kernel), list(dilation), list(padding), list(stride))


def batch_norm(
    x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Normalise a batch, by its own statistics or by the running ones; it moves ``variance``.

    OneFlow's own operator takes the variance as the mean of the squares less the square of the mean: of a mean that is
    large beside the deviation it has other numbers, or NaN. So it gets what is left when each channel's mean is
    subtracted, which is normalised to the same numbers, with the same gradients. Of a weight and a bias it takes both
    or none, and with one of them alone gives any numbers.

    Returns:
        What is normalised, and what ``mean`` is to become; None where it stays, or where there is none.

    Raises:
        DataError: There is one number of each channel, which has no variance.
    """
    if weight is not None and bias is None:
        bias = make_constant(tuple(weight.shape), 0, weight.dtype, weight)
    if bias is not None and weight is None:
        weight = make_constant(tuple(bias.shape), 1, bias.dtype, bias)
    if not training and mean is not None:
        return _C.normalization(x, mean, variance, weight, bias, 1, eps, momentum, False), None
    processes = x.placement.ranks.size if x.is_global else 1
    if x.numel() == x.shape[1] * processes:
        raise refuse_one_number(x.shape)
    average = _average_channels(detach(x))
    centred = subtract(x, average.reshape(1, -1, *(1 for _ in x.shape[2:])))
    if mean is None:
        return _C.normalization(centred, None, None, weight, bias, 1, eps, momentum, True), None
    unread = average * 0  # the operator moves both statistics, or none
    made = _C.normalization(centred, unread, variance, weight, bias, 1, eps, momentum, True)
    if x.is_global:
        average = _average_channels_of_first(detach(x), processes)
    kept = find_kept_share(momentum)  # as of the variance
    return made, mean * kept + average * (1 - kept)


def _average_channels(x: Tensor) -> Tensor:
    """Take the mean of each channel; by matrix products, which are several times as fast on a CPU as ``mean``."""
    if x.is_global or not x.numel():
        return x.mean(dim=[axis for axis in range(x.ndim) if axis != 1])
    images, channels = x.shape[:2]
    pixels = x.numel() // (images * channels)
    device = str(x.device)
    average = _C.matmul(make_shares((1, images), x.dtype, device), x.reshape(images, -1))
    if pixels > 1:
        average = _C.matmul(average.reshape(channels, pixels), make_shares((pixels, 1), x.dtype, device))
    return average.reshape(channels)


def _average_channels_of_first(x: Tensor, processes: int) -> Tensor:
    """Take the mean of each channel of the images that the first process has, whose statistics count."""
    rows = x.reshape(processes, x.shape[0] // processes, x.shape[1], -1).mean(dim=[1, 3])
    return rows.to_global(sbp=flow.sbp.broadcast).narrow(0, 0, 1).reshape(x.shape[1])


def _normalise(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = subtract(x, x.mean(dim=axes, keepdim=True))
    return multiply(centred, flow.rsqrt((centred * centred).mean(dim=axes, keepdim=True) + eps))


def _layer_norm(x: Tensor, axes: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the last axes; written out, because OneFlow's own aborts on some shapes and loses a gradient."""
    made = _normalise(x, list(range(x.ndim - axes, x.ndim)), eps)
    made = made if weight is None else multiply(made, weight)
    return made if bias is None else add(made, bias)


def _group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise groups of channels; OneFlow's own has no kernel on a CPU."""
    shape = tuple(x.shape)
    made = _normalise(x.reshape(shape[0], groups, -1), [2], eps).reshape(shape[0], shape[1], -1)
    made = made if weight is None else multiply(made, weight.reshape(1, -1, 1))
    return add_bias(made, bias).reshape(*shape)


def _sample_grid(x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
    return _C.grid_sample(x, grid, interpolation_mode=mode, padding_mode=padding, align_corners=aligned)


LAYERS: Final[Mapping[str, Callable[..., Any]]] = {
    "matmul": _matmul,
    "linear": _linear,
    "einsum": _einsum,
    "conv": convolve,
    "conv_transpose": _convolve_transposed,
    "unfold": _unfold,
    "layer_norm": _layer_norm,
    "grid_sample": _sample_grid,
    "group_norm": _group_norm,
}
