"""Convolutions of translated models: by OneFlow's own op, or by the product of matrices that is faster on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.broadcasting import add_bias
from layered_lr_oneflow.operators.convolution_forms import (
    Convolution,
    multiply_columns,
    multiply_dense,
    multiply_images,
    multiply_patches,
    multiply_pixels,
    multiply_strips,
    multiply_whole,
)
from layered_lr_oneflow.operators.placement import Axis
from layered_lr_oneflow.operators.winograd import KERNEL, count_products, multiply_tiles
from layered_lr_oneflow.runtime import flow

_C = flow._C
_OWN = {3: _C.conv1d, 4: _C.conv2d, 5: _C.conv3d}

LARGEST_COPY = 2**26
"""Numbers that a form may copy beside the activations, 256 MB in float32; OneFlow's own op copies image by image."""


def _copy_for_weights(sizes: Convolution) -> int:
    return sizes.images * sizes.channels * sizes.weights * sizes.out_pixels


def _copy_for_tiles(sizes: Convolution) -> int:
    """The pixels of all tiles, and their products."""
    products = math.prod(count_products(axis) for axis in sizes.axes)
    return sizes.images * (sizes.channels + sizes.out_channels) * products


class Form(NamedTuple):
    """One way to write a convolution.

    Args:
        name: For people.
        fits: Whether a convolution can be written so, and is faster so than by OneFlow's own op.
        compute: Takes images, weight without the parts that meet padding alone, and sizes.
        copies: How many numbers it copies, at most.
    """

    name: str
    fits: Callable[[Convolution], bool]
    compute: Callable[[Tensor, Tensor, Convolution], Tensor]
    copies: Callable[[Convolution], int] = _copy_for_weights


def _is_whole(sizes: Convolution) -> bool:
    """(512 channels, 1x1 after the cut of a 3x3): 8 ms against 253. 55 groups of 8: 0.8 against 7.9."""
    return all(axis.out == 1 and axis.size == axis.kernel and axis.padding == 0 for axis in sizes.axes) and all(
        axis.dilation == 1 or axis.kernel == 1 for axis in sizes.axes
    )


def _is_pointwise(sizes: Convolution) -> bool:
    return sizes.groups == 1 and all(axis.kernel == 1 and axis.padding == 0 for axis in sizes.axes)


def _is_pointwise_small(sizes: Convolution) -> bool:
    """1024 to 256 channels on 2x2: 3.7 ms against 15; 64 to 64 on 16x16: 4.9 against 8.3, and 6.4 image by image.

    With stride 2, 512 to 1024 on 4x4: 8.0 against 24.5; 256 to 512 on 8x8: 8.5 against 10.0.
    """
    strides = any(axis.stride != 1 for axis in sizes.axes)
    return _is_pointwise(sizes) and sizes.pixels <= (64 if strides else 256)


def _is_pointwise_large(sizes: Convolution) -> bool:
    """16 to 72 channels on 32x32: 13.4 ms against 17.4; 64 to 256 on 56x56: 60 against 99."""
    return _is_pointwise(sizes) and all(axis.stride == 1 for axis in sizes.axes)


def _is_patches(sizes: Convolution) -> bool:
    """384 to 768 channels, 2x2 on 4x4: 16.8 ms against 58.9; 3 to 768, 16x16 on 64x64: 7.9 against 14.3.

    Slower where there are many patches: 3 to 96, 4x4 on 64x64: 16.5 against 8.1.
    """
    apart = all(a.kernel == a.stride and a.padding == 0 and a.dilation == 1 for a in sizes.axes)
    return apart and sizes.groups == 1 and sizes.out_pixels <= 16


def _is_dense(sizes: Convolution) -> bool:
    """Depthwise, 192 channels, 7x7 on 8x8: 10 ms against 139; 72, 3x3 with stride 2 on 8x8: 0.9 against 5.7.

    32 groups of 8 channels on 4x4: 6.5 against 16.9, and 12.4 in columns; in larger groups and on 8x8 columns win.
    """
    if sizes.group_in == 1:
        return sizes.pixels <= 64
    return sizes.groups > 1 and sizes.pixels <= 16 and sizes.group_out <= 32


def _is_strips(sizes: Convolution) -> bool:
    """Depthwise, 96 channels on 16x16: 3x3 in 22 ms against 158, 7x7 in 30 against 293; on 32x32 123 against 230.

    With stride 2 on 32x32: 68 against 74. On 56x56 with stride 2 it is slower: 75 against 48.
    """
    if not (sizes.groups == sizes.channels == sizes.out_channels and len(sizes.axes) == 2):
        return False
    rows, columns = sizes.axes
    return columns.size <= 32 and rows.padding >= 0


def _is_tiles(sizes: Convolution) -> bool:
    """64 channels on 16x16: 19 ms against 37; 512 on 2x2: 18 against 78; 64 to 256 on 8x8: 12.8 against 22.8.

    On 64x64, 8 images of 64 channels: 121 against 151; on 112x112 no faster. Slower for few pixels in all (4 images of
    256 channels on 4x4: 3.4 against 2.8) and where many more channels go out than come in (8 to 64: 7.3 against 5.3).
    """
    if sizes.groups > 1 or len(sizes.axes) != 2:
        return False
    plain = all(axis.kernel == KERNEL and axis.stride == axis.dilation == 1 for axis in sizes.axes)
    many = sizes.channels >= 4 and sizes.images * sizes.out_pixels >= 128
    return plain and many and sizes.out_channels <= 4 * sizes.channels and sizes.pixels <= 64**2


def _is_columns(sizes: Convolution) -> bool:
    """With stride 2, 256 to 512 channels on 4x4: 9.3 ms against 36; 64 to 64 on 8x8: 2.2 against 3.4.

    5x5, 64 channels on 8x8: 25 against 29. Slower with few channels on 8x8, and on larger images.
    """
    return sizes.pixels <= 16 or (sizes.pixels <= 64 and sizes.channels >= 64)


FORMS: Final = (
    Form("one pixel as a linear layer", _is_whole, multiply_whole),
    Form("1x1 as one product of all images", _is_pointwise_small, multiply_pixels),
    Form("1x1 as a product for each image", _is_pointwise_large, multiply_images),
    Form("patches as a linear layer", _is_patches, multiply_patches),
    Form("groups as matrices of pixels by pixels", _is_dense, multiply_dense),
    Form("channels as matrices of strips", _is_strips, multiply_strips),
    Form("3x3 as products of tiles", _is_tiles, multiply_tiles, _copy_for_tiles),
    Form("columns of all images by one product", _is_columns, multiply_columns),
)
"""The first that fits is taken, else OneFlow's own op.

The times beside the rules are of a forward and a backward pass on 32 images (8 from 56x56 on) in float32 on one core
of an Intel CPU with AVX-512, against OneFlow's own op, 3x3 where nothing else is said; `python -m
benchmarks.convolutions` measures them anew.
"""


class _Choice(NamedTuple):
    form: Form
    sizes: Convolution
    firsts: tuple[int, ...]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], groups: int,
) -> Tensor:  # fmt: skip
    """Convolve as torch does.

    Args:
        x: Shape (images, channels, …) with one to three spatial axes.
        weight: Shape (out channels, channels of a group, …).
        bias: Shape (out channels,), or None.
        stride: Of each spatial axis.
        padding: Zeros at both ends of each spatial axis.
        dilation: Pixels between two weights of each spatial axis.
        groups: Of channels.
    """
    choice = None
    if not x.is_global and x.device.type == "cpu":
        choice = choose_form(tuple(x.shape), tuple(weight.shape), stride, padding, dilation, groups)
    if choice is None:
        sizes = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation)}
        return add_bias(_OWN[weight.ndim](x, weight, None, groups=groups, **sizes), bias)
    for number, (first, axis) in enumerate(zip(choice.firsts, choice.sizes.axes, strict=True), 2):
        if weight.shape[number] > axis.kernel:
            weight = flow.narrow(weight, number, first, axis.kernel)
    made = choice.form.compute(x, weight, choice.sizes)
    return add_bias(made, bias)


@lru_cache(maxsize=4096)
def choose_form(
    shape: tuple[int, ...], weight: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], groups: int,
) -> _Choice | None:  # fmt: skip
    """Choose how to write a convolution; None is OneFlow's own op.

    Args:
        shape: Of the images.
        weight: Its shape.
        stride: Of each spatial axis.
        padding: Likewise.
        dilation: Likewise.
        groups: Of channels.
    """
    axes, firsts = [], []
    for size, kernel, step, pad, apart in zip(shape[2:], weight[2:], stride, padding, dilation, strict=True):
        out = (size + 2 * pad - apart * (kernel - 1) - 1) // step + 1
        if out < 1:
            return None  # OneFlow says what is wrong
        axis, first = Axis(size, kernel, step, pad, apart, out).trim()
        axes.append(axis)
        firsts.append(first)
    sizes = Convolution(shape[0], shape[1], weight[0], groups, tuple(axes))
    if not sizes.images or sizes.channels != weight[1] * groups:
        return None
    form = next((form for form in FORMS if form.fits(sizes) and form.copies(sizes) <= LARGEST_COPY), None)
    return None if form is None else _Choice(form, sizes, tuple(firsts))
