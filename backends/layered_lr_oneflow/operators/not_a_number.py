"""NaN as torch has it, where kernels of OneFlow 0.9 lose it."""

from __future__ import annotations

import math

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import as_tensor, detach
from layered_lr_oneflow.operators.broadcasting import equals
from layered_lr_oneflow.runtime import flow


def find_extreme(x: Tensor, axes: list[int], keepdim: bool, largest: bool) -> Tensor:
    """Find the largest or the smallest number along axes; NaN where one is NaN, which OneFlow leaves out.

    Of infinite numbers alone OneFlow makes the dtype's last finite one, which none of them equals.

    Args:
        x: Any tensor.
        axes: Those that are reduced.
        keepdim: Whether they stay, of length 1.
        largest: Whether the largest number is looked for.
    """
    function = flow.amax if largest else flow.amin
    if not x.dtype.is_floating_point:
        return function(x, dim=axes, keepdim=keepdim)
    made = function(x, dim=axes, keepdim=True)
    is_there = flow.any(equals(detach(x), detach(made)), dim=axes, keepdim=True)
    made = flow.where(is_there, made, as_tensor(-math.inf if largest else math.inf, made))
    made = put_nan(flow.any(x != x, dim=axes, keepdim=True), made)
    return made if keepdim else made.squeeze(axes)


def place_largest(x: Tensor, axis: int, keepdim: bool) -> Tensor:
    """Find where along an axis the first NaN is, or else the largest number; OneFlow passes NaN over."""
    if x.dtype.is_floating_point:
        is_nan = x != x
        x = flow.where(flow.any(is_nan, dim=[axis], keepdim=True), is_nan.to(x.dtype), x)
    return flow.argmax(x, dim=axis, keepdim=keepdim)


def adapt_max_pool(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Find the largest number in each part of an image; NaN where one is NaN."""

    def pool(image: Tensor) -> Tensor:
        made = flow.nn.functional.adaptive_max_pool2d(image, list(size))
        return made[0] if isinstance(made, tuple | list) else made

    return put_nan(pool((x != x).to(x.dtype)) > 0.5, pool(x))


def put_nan(where: Tensor, x: Tensor) -> Tensor:
    """Put NaN into a tensor, where another one is true."""
    return flow.where(where, as_tensor(math.nan, x), x)
