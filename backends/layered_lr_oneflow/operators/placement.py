"""Matrices that never change: which weight of a convolution meets which pixel, and what takes a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr_oneflow.oneflow_types import Tensor, TensorType
from layered_lr_oneflow.runtime import flow


class Axis(NamedTuple):
    """A convolution along one spatial axis.

    Args:
        size: Pixels of the image.
        kernel: Weights.
        stride: Pixels between two outputs.
        padding: Zeros before the image; less than 0 where the first weights were cut off.
        dilation: Pixels between two weights.
        out: Outputs.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    out: int

    def mark_meeting(self) -> NDArray[np.bool_]:
        """Mark where a weight of an output meets a pixel: shape (kernel, size, out)."""
        at = np.arange(self.out) * self.stride - self.padding + self.dilation * np.arange(self.kernel)[:, None]
        meets: NDArray[np.bool_] = np.arange(self.size)[:, None] == at[:, None, :]
        return meets

    def trim(self) -> tuple[Axis, int]:
        """Leave out the weights at both ends that meet padding alone; returns how many at the beginning, too."""
        used = np.flatnonzero(self.mark_meeting().any((1, 2)))
        if not used.size:
            return self, 0
        first, last = int(used[0]), int(used[-1])
        shorter = self._replace(kernel=last - first + 1, padding=self.padding - self.dilation * first)
        return shorter, first


@cache
def place_weights(axes: tuple[Axis, ...], dtype: TensorType, device: str) -> Tensor:
    """Make the matrices that place each weight of a kernel in the matrix of a convolution.

    Args:
        axes: Of the convolution.
        dtype: Of the result.
        device: Of the result.

    Returns:
        Shape (weights, pixels in * pixels out).
    """
    return make_constant(_mark_all(axes).reshape(math.prod(axis.kernel for axis in axes), -1), dtype, device)


@cache
def place_pixels(axes: tuple[Axis, ...], dtype: TensorType, device: str) -> Tensor:
    """Make the matrix that copies pixels to where weights meet them.

    Args:
        axes: Of the convolution.
        dtype: Of the result.
        device: Of the result.

    Returns:
        Shape (pixels in, weights * pixels out).
    """
    marks = np.moveaxis(_mark_all(axes), 1, 0)
    return make_constant(marks.reshape(marks.shape[0], -1), dtype, device)


def _mark_all(axes: Sequence[Axis]) -> NDArray[np.bool_]:
    """Mark the meetings of several axes: shape (weights, pixels in, pixels out)."""
    marks: list[NDArray[np.bool_]] = [axis.mark_meeting() for axis in axes]
    return reduce(_combine, marks)


def _combine(rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
    both = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    sizes = [one * other for one, other in zip(rows.shape, columns.shape, strict=True)]
    return both.reshape(sizes)


@cache
def make_shares(shape: tuple[int, int], dtype: TensorType, device: str) -> Tensor:
    """Make a row or a column of equal numbers that add up to 1: a product with it is a mean."""
    return make_constant(np.full(shape, 1 / math.prod(shape)), dtype, device)


def make_constant(numbers: NDArray[Any], dtype: TensorType, device: str) -> Tensor:
    """Make a tensor that graphs may capture: it never changes, and is whole before anything reads it."""
    with flow._oneflow_internal.lazy_mode.guard(False), flow.no_grad():
        kept = np.float64 if dtype == flow.float64 else np.float32
        made = flow.tensor(np.ascontiguousarray(numbers, kept), dtype=dtype, device=device)
        flow._oneflow_internal.eager.Sync()
    return made
