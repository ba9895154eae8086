"""Convolutions written as products of matrices, which OneFlow 0.9 is fast at on a CPU.

OneFlow's own convolutions copy every pixel into columns one by one, image after image and group after group, and then
multiply for each image alone. On small images that takes several times as long as one product for all images. Each
form here gives the same numbers, but for the order of sums; where an activation is NaN or infinite, more of the same
image may be NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.placement import Axis, place_pixels, place_weights
from layered_lr_oneflow.runtime import flow

_C = flow._C

STRIP_ROWS = 4  # rows of output that one matrix makes: 2 and 8 took 1.0 to 2.8 times as long on maps of 12 to 56 pixels


class Convolution(NamedTuple):
    """The sizes of a convolution.

    Args:
        images: Of the batch.
        channels: That come in.
        out_channels: That go out.
        groups: Of channels.
        axes: Of the images.
    """

    images: int
    channels: int
    out_channels: int
    groups: int
    axes: tuple[Axis, ...]

    @property
    def pixels(self) -> int:
        """Of an image that comes in."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def out_pixels(self) -> int:
        """Of an image that goes out."""
        return math.prod(axis.out for axis in self.axes)

    @property
    def weights(self) -> int:
        """Of a kernel, for one channel."""
        return math.prod(axis.kernel for axis in self.axes)

    @property
    def group_in(self) -> int:
        """Channels of a group that come in."""
        return self.channels // self.groups

    @property
    def group_out(self) -> int:
        """Channels of a group that go out."""
        return self.out_channels // self.groups

    @property
    def out_sizes(self) -> list[int]:
        """Of the result's spatial axes."""
        return [axis.out for axis in self.axes]


def multiply_whole(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve images that are as large as the kernel: one output pixel, a linear layer for each group."""
    made = [sizes.images, sizes.out_channels, *sizes.out_sizes]
    if sizes.groups == 1:
        rows = x.reshape(sizes.images, -1)
        return _C.matmul(rows, weight.reshape(sizes.out_channels, -1), transpose_b=True).reshape(made)
    rows = x.reshape(sizes.images, sizes.groups, -1).permute(1, 0, 2)
    product = _C.batch_matmul(rows, weight.reshape(sizes.groups, sizes.group_out, -1), transpose_b=True)
    return product.permute(1, 0, 2).reshape(made)


def multiply_pixels(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve by 1x1: one product (out, in) by (in, pixels of all images)."""
    if any(axis.stride != 1 for axis in sizes.axes):
        x = x[tuple([slice(None)] * 2 + [slice(None, None, axis.stride) for axis in sizes.axes])]
    columns = _put_channels_first(x).reshape(sizes.channels, -1)
    return _put_images_first(_C.matmul(weight.reshape(sizes.out_channels, -1), columns), sizes)


def multiply_images(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve by 1x1 with stride 1: a product (out, in) by (in, pixels) for each image."""
    kernels = weight.reshape(1, sizes.out_channels, sizes.channels)
    kernels = kernels.expand(sizes.images, sizes.out_channels, sizes.channels)
    product = _C.batch_matmul(kernels, x.reshape(sizes.images, sizes.channels, -1))
    return product.reshape([sizes.images, sizes.out_channels, *sizes.out_sizes])


def multiply_patches(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve with a stride as large as the kernel: a linear layer on patches that do not overlap."""
    cut = [(axis.out, axis.kernel) for axis in sizes.axes]
    for axis, (out, kernel) in enumerate(cut, 2):
        if x.shape[axis] > out * kernel:
            x = flow.narrow(x, axis, 0, out * kernel)
    x = x.reshape([sizes.images, sizes.channels, *(size for pair in cut for size in pair)])
    outer, inner = range(2, x.ndim, 2), range(3, x.ndim, 2)
    rows = x.permute([0, *outer, 1, *inner]).reshape(sizes.images * sizes.out_pixels, -1)
    product = _C.matmul(rows, weight.reshape(sizes.out_channels, -1), transpose_b=True)
    product = product.reshape([sizes.images, *sizes.out_sizes, sizes.out_channels])
    return product.permute([0, len(cut) + 1, *range(1, len(cut) + 1)])


def multiply_columns(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve small images: a product copies the pixels into columns, and a second one takes all images at once."""
    placed = place_pixels(sizes.axes, x.dtype, str(x.device))
    columns = _C.matmul(x.reshape(sizes.images * sizes.channels, sizes.pixels), placed)
    rows = sizes.channels * sizes.weights
    columns = columns.reshape(sizes.images, rows, sizes.out_pixels).permute(1, 0, 2)
    if sizes.groups == 1:
        product = _C.matmul(weight.reshape(sizes.out_channels, rows), columns.reshape(rows, -1))
        return _put_images_first(product, sizes)
    in_groups = columns.reshape(sizes.groups, rows // sizes.groups, -1)
    product = _C.batch_matmul(weight.reshape(sizes.groups, sizes.group_out, rows // sizes.groups), in_groups)
    return _put_images_first(product, sizes)


def multiply_dense(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve small images of few channels a group: a matrix of all pixels in by all pixels out for each group."""
    kernels = weight.reshape(sizes.out_channels * sizes.group_in, sizes.weights)
    placed = _C.matmul(kernels, place_weights(sizes.axes, x.dtype, str(x.device)))
    groups, pixels, out_pixels = sizes.groups, sizes.pixels, sizes.out_pixels
    if sizes.group_in * sizes.group_out > 1:
        placed = placed.reshape(groups, sizes.group_out, sizes.group_in, pixels, out_pixels).permute(0, 2, 3, 1, 4)
    placed = placed.reshape(groups, sizes.group_in * pixels, sizes.group_out * out_pixels)
    rows = x.reshape(sizes.images, groups, sizes.group_in * pixels).permute(1, 0, 2)
    product = _C.batch_matmul(rows, placed).permute(1, 0, 2)
    return product.reshape([sizes.images, sizes.out_channels, *sizes.out_sizes])


def multiply_strips(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve each channel of images by itself: a matrix of pixels by pixels for a strip of a few rows."""
    rows, columns = sizes.axes
    strips = -(-rows.out // STRIP_ROWS)
    height = (STRIP_ROWS - 1) * rows.stride + rows.dilation * (rows.kernel - 1) + 1
    within = rows._replace(size=height, padding=0, out=STRIP_ROWS)
    placed = _C.matmul(
        weight.reshape(sizes.channels, sizes.weights), place_weights((within, columns), x.dtype, str(x.device))
    ).reshape(sizes.channels, height * columns.size, STRIP_ROWS * columns.out)
    step = STRIP_ROWS * rows.stride
    below = (strips - 1) * step + height - rows.size - rows.padding
    padded = _C.pad(_put_channels_first(x), [0, 0, rows.padding, max(below, 0)], mode="constant", value=0)
    cut = flow.stack([flow.narrow(padded, 2, strip * step, height) for strip in range(strips)], dim=2)
    product = _C.batch_matmul(cut.reshape(sizes.channels, sizes.images * strips, height * columns.size), placed)
    product = product.reshape(sizes.channels, sizes.images, strips * STRIP_ROWS, columns.out)
    if strips * STRIP_ROWS > rows.out:
        product = flow.narrow(product, 2, 0, rows.out)
    return product.permute(1, 0, 2, 3)


def _put_channels_first(x: Tensor) -> Tensor:
    return x.permute([1, 0, *range(2, x.ndim)])


def _put_images_first(product: Tensor, sizes: Convolution) -> Tensor:
    """Bring a product (out channels, images * pixels) into the shape of images."""
    return _put_channels_first(product.reshape([sizes.out_channels, sizes.images, *sizes.out_sizes]))
