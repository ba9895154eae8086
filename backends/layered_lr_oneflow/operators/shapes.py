"""Operators of a traced model that move numbers to other places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import convert
from layered_lr_oneflow.runtime import flow


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    if step == 1:
        return flow.narrow(x, axis, start, stop - start)
    index = [slice(None)] * axis + [slice(start, stop, step)]
    return x[tuple(index)]


def _pad(x: Tensor, widths: tuple[int, ...], mode: str, value: float) -> Tensor:
    for place in range(len(widths) // 2):  # a negative width cuts
        axis, (before, after) = x.ndim - 1 - place, widths[2 * place : 2 * place + 2]
        if min(before, after) < 0:
            start, stop = max(-before, 0), x.shape[axis] - max(-after, 0)
            x = flow.narrow(x, axis, start, stop - start)
    widths = tuple(max(width, 0) for width in widths)
    if not any(widths):
        return x
    if mode == "circular":
        return _pad_around(x, widths)
    if mode == "constant":
        return flow._C.pad(x, list(widths), mode=mode, value=value)
    if len(widths) == 4 and x.ndim == 4:
        return flow._C.pad(x, list(widths), mode={"reflect": "reflect", "replicate": "replicate"}[mode], value=0)
    return _pad_by_index(x, widths, mode)


def _pad_around(x: Tensor, widths: tuple[int, ...]) -> Tensor:
    for place in range(len(widths) // 2):
        axis, (before, after) = x.ndim - 1 - place, widths[2 * place : 2 * place + 2]
        length = x.shape[axis]
        parts = [flow.narrow(x, axis, length - before, before)] if before else []
        parts.append(x)
        parts += [flow.narrow(x, axis, 0, after)] if after else []
        x = flow.cat(parts, dim=axis) if len(parts) > 1 else x
    return x


def _pad_by_index(x: Tensor, widths: tuple[int, ...], mode: str) -> Tensor:
    """Pad with slices of the tensor itself, one place after the other: OneFlow has these modes for images only."""
    for place in range(len(widths) // 2):
        axis, (before, after) = x.ndim - 1 - place, widths[2 * place : 2 * place + 2]
        last = x.shape[axis] - 1
        if mode == "reflect":
            taken = [*range(before, 0, -1), *range(last - 1, last - 1 - after, -1)]
        else:
            taken = [0] * before + [last] * after
        parts = [flow.narrow(x, axis, index, 1) for index in taken]
        x = flow.cat([*parts[:before], x, *parts[before:]], dim=axis)
    return x


def _roll(x: Tensor, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    for shift, axis in zip(shifts, axes, strict=True):
        length = x.shape[axis]
        cut = -shift % length if length else 0
        if cut:
            parts = [flow.narrow(x, axis, cut, length - cut), flow.narrow(x, axis, 0, cut)]
            x = flow.cat(parts, dim=axis)
    return x


def _index_select(x: Tensor, axis: int, index: Tensor) -> Tensor:
    return flow.index_select(x, axis, index)


SHAPES: Final[Mapping[str, Callable[..., Any]]] = {
    "reshape": lambda x, shape: flow.reshape(x, list(shape)),
    "permute": lambda x, axes: flow.permute(x, list(axes)),
    "expand": lambda x, shape: x.expand(*shape),
    "cat": lambda tensors, axis: flow.cat(list(tensors), dim=axis),
    "slice": _slice,
    "flip": lambda x, axes: flow.flip(x, list(axes)),
    "roll": _roll,
    "pad": _pad,
    "index_select": _index_select,
    "gather": lambda x, axis, index: flow.gather(x, axis, convert(index, flow.int64)),
    "scatter_add": lambda x, axis, index, source: flow.scatter_add(x, axis, convert(index, flow.int64), source),
}
