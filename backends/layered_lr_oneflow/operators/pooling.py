"""Operators of a traced model that pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.not_a_number import adapt_max_pool
from layered_lr_oneflow.runtime import flow

_C = flow._C

_AVERAGE = {1: _C.avg_pool1d, 2: _C.avg_pool2d, 3: _C.avg_pool3d}
_ADAPTIVE = {1: _C.adaptive_avg_pool1d, 2: _C.adaptive_avg_pool2d, 3: _C.adaptive_avg_pool3d}


def _max_pool(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
    ceil: bool,
) -> Tensor:  # fmt: skip
    function = getattr(flow.nn.functional, f"max_pool{len(kernel)}d")
    made = function(x, list(kernel), list(stride), list(padding), list(dilation), False, ceil)
    return made[0] if isinstance(made, tuple | list) else made


def _avg_pool(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool,
    counts_padding: bool, divisor: int | None,
) -> Tensor:  # fmt: skip
    sizes = {"kernel_size": list(kernel), "stride": list(stride), "padding": list(padding)}
    return _AVERAGE[len(kernel)](
        x, **sizes, ceil_mode=ceil, count_include_pad=counts_padding, divisor_override=divisor or 0
    )


def _adaptive_avg_pool(x: Tensor, size: tuple[int, ...]) -> Tensor:
    here = tuple(x.shape[2:])
    if here == size:
        return x
    if all(length == 1 for length in size):  # OneFlow's own is slow
        return x.mean(dim=list(range(2, x.ndim)), keepdim=True)
    if all(length % wanted == 0 for length, wanted in zip(here, size, strict=True)):
        kernel = [length // wanted for length, wanted in zip(here, size, strict=True)]
        return _avg_pool(x, tuple(kernel), tuple(kernel), (0,) * len(kernel), False, True, None)
    return _ADAPTIVE[len(size)](x, output_size=list(size))


POOLING: Final[Mapping[str, Callable[..., Any]]] = {
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "adaptive_avg_pool": _adaptive_avg_pool,
    "adaptive_max_pool": adapt_max_pool,
}
