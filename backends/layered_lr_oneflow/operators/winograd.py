"""Convolutions by 3x3 in fewer products: the minimal filtering F(2x2, 3x3) that Winograd found.

The formulas are those of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1. Along
one axis a tile of four pixels and a kernel of three weights become four products, of which two outputs are sums: four
multiplications where the plain sums take six, and 16 instead of 36 along two axes. Each output is made of its own nine
pixels alone, and float32 rounds it as it rounds the plain sums: by the largest of the pixels times the weights, also
where the weight of that pixel is zero. Larger tiles would save more and round ten times worse.
Two pixels between padding take three products.

The transformations are products with constant matrices, too, since OneFlow 0.9 takes longer to move numbers on a CPU
than to multiply them. Their axes stand in an order in which nothing is moved: columns come before rows, since a matrix
takes the last axis of images first, and tiles and images come between the places in a tile and the channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr_oneflow.oneflow_types import Tensor, TensorType
from layered_lr_oneflow.operators.convolution_forms import Convolution
from layered_lr_oneflow.operators.placement import Axis, make_constant
from layered_lr_oneflow.runtime import flow

_C = flow._C

KERNEL: Final = 3
OUTPUTS: Final = 2
"""Of a tile, along one axis."""


class _Filter(NamedTuple):
    """How a tile of four pixels along one axis becomes two outputs, by as many products as there are rows of pixels.

    Args:
        pixels: Shape (products, 4), of whole numbers.
        weights: Shape (products, 3).
        outputs: Shape (2, products), of whole numbers.
    """

    pixels: NDArray[Any]
    weights: NDArray[Any]
    outputs: NDArray[Any]

    @property
    def products(self) -> int:
        return len(self.pixels)


_ANY: Final = _Filter(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
# Of two pixels between padding: b (p + q) + (c - b) q and b (p + q) + (a - b) p.
_BETWEEN_ZEROS: Final = _Filter(
    np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]),
    np.array([[0, 1, 0], [0, -1, 1], [1, -1, 0]]),
    np.array([[1, 1, 0], [1, 0, 1]]),
)


def _choose_filter(axis: Axis) -> _Filter:
    return _BETWEEN_ZEROS if axis.size == 2 and axis.padding == 1 else _ANY


def count_products(axis: Axis) -> int:
    """How many products, for all tiles, give all outputs along one axis."""
    return _choose_filter(axis).products * _count_tiles(axis)


def _count_tiles(axis: Axis) -> int:
    return -(-axis.out // OUTPUTS)


def multiply_tiles(x: Tensor, weight: Tensor, sizes: Convolution) -> Tensor:
    """Convolve by 3x3 with stride 1: a product of channels by channels for each product of a tile."""
    kernels = _C.matmul(
        _take_weights(*sizes.axes, x.dtype, str(x.device)), weight.reshape(-1, KERNEL**2), transpose_b=True
    )
    kernels = kernels.reshape(-1, sizes.out_channels, sizes.channels)
    pixels = _cut_tiles(x, sizes).reshape(kernels.shape[0], -1, sizes.channels)
    return _join_tiles(_C.batch_matmul(pixels, kernels, transpose_b=True), sizes)


def _cut_tiles(x: Tensor, sizes: Convolution) -> Tensor:
    """Take images to tiles: (products by columns, products * tiles by rows, tiles by columns * images * channels)."""
    rows, columns = sizes.axes
    by_columns, by_rows = (_take_pixels(axis, x.dtype, str(x.device)) for axis in (columns, rows))
    cut = _C.matmul(by_columns, x.reshape(-1, columns.size), transpose_b=True)
    cut = cut.reshape(_choose_filter(columns).products, -1, rows.size)
    return _C.batch_matmul(_for_each(cut, by_rows), cut, transpose_b=True)


def _join_tiles(products: Tensor, sizes: Convolution) -> Tensor:
    """Take the products of tiles to images."""
    rows, columns = sizes.axes
    by_columns, by_rows = (_make_outputs(axis, products.dtype, str(products.device)) for axis in (columns, rows))
    joined = products.reshape(_choose_filter(columns).products, by_rows.shape[1], -1)
    joined = _C.batch_matmul(joined, _for_each(joined, by_rows), transpose_a=True, transpose_b=True)
    joined = _C.matmul(joined.reshape(by_columns.shape[1], -1), by_columns, transpose_a=True, transpose_b=True)
    return joined.reshape(sizes.images, sizes.out_channels, rows.out, columns.out)


def _for_each(batch: Tensor, matrix: Tensor) -> Tensor:
    return matrix.reshape(1, *matrix.shape).expand(batch.shape[0], *matrix.shape)


@cache
def _take_weights(rows: Axis, columns: Axis, dtype: TensorType, device: str) -> Tensor:
    """Make the matrix that takes kernels to tiles: shape (products by columns * by rows, weights)."""
    both = np.einsum("ac,br->abrc", _choose_filter(columns).weights, _choose_filter(rows).weights)
    return make_constant(both.reshape(-1, KERNEL**2), dtype, device)


@cache
def _take_pixels(axis: Axis, dtype: TensorType, device: str) -> Tensor:
    """Make the matrix that takes pixels along one axis to tiles: shape (products * tiles, pixels).

    Pixels of a tile that lie in the padding are zero, and are left out.
    """
    pixels = _choose_filter(axis).pixels
    made = np.zeros((len(pixels), _count_tiles(axis), axis.size))
    for tile in range(_count_tiles(axis)):
        for place in range(pixels.shape[1]):
            pixel = tile * OUTPUTS + place - axis.padding
            if 0 <= pixel < axis.size:
                made[:, tile, pixel] = pixels[:, place]
    return make_constant(made.reshape(-1, axis.size), dtype, device)


@cache
def _make_outputs(axis: Axis, dtype: TensorType, device: str) -> Tensor:
    """Make the matrix that takes products along one axis to outputs: shape (outputs, products * tiles).

    The last tile may have an output too many, which is left out.
    """
    outputs = _choose_filter(axis).outputs
    made = np.zeros((axis.out, outputs.shape[1], _count_tiles(axis)))
    for output in range(axis.out):
        made[output, :, output // OUTPUTS] = outputs[output % OUTPUTS]
    return make_constant(made.reshape(axis.out, -1), dtype, device)
