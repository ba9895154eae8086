"""``x[...]`` and ``x[...] = y`` of a model that is being recorded, as slices, selections and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import handle_torch_function, has_torch_function

from layered_lr_torch.torch_types import Tensor


def slice_along(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Slice one axis; a recorder records it as one operator."""
    if has_torch_function((x,)):
        recorded: Tensor = handle_torch_function(slice_along, (x,), x, axis, start, stop, step)
        return recorded
    index = (*(slice(None) for _ in range(axis)), slice(start, stop, step))
    return x[index]


def select(x: Tensor, dim: int, index: Any) -> Tensor:
    """Take one place of an axis, and leave the axis out."""
    axis, length = dim % x.dim(), x.shape[dim]
    start = int(index) % length
    return slice_along(x, axis, start, start + 1, 1).reshape((*x.shape[:axis], *x.shape[axis + 1 :]))


def narrow(x: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """Take some places of an axis, one after the other."""
    axis = dim % x.dim()
    first = find_start(x, axis, start)
    return slice_along(x, axis, first, first + length, 1)


def find_start(x: Tensor, axis: int, start: Any) -> int:
    """Find where ``narrow`` begins, counted from the first place of the axis: a negative number counts from its end."""
    first = int(start)
    return first + int(x.shape[axis]) if first < 0 else first


def get_item(x: Tensor, index: Any) -> Any:
    """Compute ``x[index]`` for slices, whole numbers, None, and tensors of whole numbers."""
    parts = _list_parts(x, index)
    if parts is None:
        return NotImplemented
    axis = 0
    shape: list[int] = []  # axes that a whole number takes are left out
    gathered: list[tuple[int, Tensor]] = []
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        if isinstance(part, torch.Tensor):
            gathered.append((len(shape), part))
            shape.append(x.shape[axis])
        elif isinstance(part, slice):
            start, stop, step = part.indices(x.shape[axis])
            if step < 1:
                return NotImplemented
            if (start, stop, step) != (0, x.shape[axis], 1):
                x = slice_along(x, axis, start, max(stop, start), step)
            shape.append(x.shape[axis])
        else:
            start = int(part) % x.shape[axis]
            x = slice_along(x, axis, start, start + 1, 1)
        axis += 1
    x = x.reshape(shape)
    return _gather(x, gathered) if gathered else x


def plain_index(index: Any) -> Any:
    """Turn masks whose values are known, in ``x[index]``, into the places that they choose."""
    given = index if isinstance(index, tuple) else (index,)
    plain: list[Any] = []
    for part in given:
        if isinstance(part, list) and part and all(isinstance(each, bool) for each in part):
            part = torch.tensor(part)
        if isinstance(part, torch.Tensor) and part.dtype == torch.bool and not isinstance(part, FakeTensor):
            plain += part.nonzero(as_tuple=True) if part.dim() else [part]
        else:
            plain.append(part)
    return tuple(plain) if isinstance(index, tuple) or len(plain) != 1 else plain[0]


def _list_parts(x: Tensor, index: Any) -> list[Any] | None:
    """List what an index says of each axis, without an ellipsis; None for a kind that is not known here."""
    given = list(index) if isinstance(index, tuple) else [index]
    parts: list[Any] = []
    for part in given:
        if isinstance(part, list | np.ndarray):
            part = torch.tensor(part)
        if isinstance(part, bool):
            return None
        if isinstance(part, torch.Tensor) and part.dim() == 0 and type(part) is torch.Tensor:
            part = int(part)
        parts.append(part)
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * (x.dim() - taken)
    place = next((place for place, part in enumerate(parts) if part is Ellipsis), len(parts))
    return [*parts[:place], *rest, *parts[place + 1 :]]


def _gather(x: Tensor, gathered: list[tuple[int, Tensor]]) -> Any:
    """Take what tensors of whole numbers say, each on an axis; of axes that stand apart, the places come first."""
    axes = [axis for axis, _ in gathered]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        x = x.permute(*axes, *(axis for axis in range(x.dim()) if axis not in axes))
        axes = list(range(len(axes)))
    if len(axes) > 1 and any(x.shape[axis] < 1 for axis in axes):
        return NotImplemented
    first, lengths = axes[0], [x.shape[axis] for axis in axes]
    indices = torch.broadcast_tensors(*(index for _, index in gathered)) if len(axes) > 1 else (gathered[0][1],)
    flat: Any = 0
    for length, index in zip(lengths, indices, strict=True):
        index = torch.where(index < 0, index + length, index).long()
        if len(axes) > 1:  # each is looked up by itself, so that a place out of range is found that is none of ``flat``
            index = torch.arange(length).index_select(0, index.reshape(-1)).reshape(index.shape)
        flat = flat * length + index
    before, after = x.shape[:first], x.shape[first + len(axes) :]
    taken = x.reshape(*before, -1, *after).index_select(first, flat.reshape(-1))
    return taken.reshape(*before, *indices[0].shape, *after)


def assign(target: Tensor, index: Any, value: Any) -> Any:
    """Compute what a tensor becomes under ``target[index] = value``.

    The index may have slices and whole numbers, and one tensor of whole numbers that are known; or it is a mask.
    """
    if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            return NotImplemented
        mask = index.reshape(*index.shape, *(1 for _ in range(target.dim() - index.dim())))
        return torch.where(mask, value, target)
    parts = _list_parts(target, index)
    if parts is None or sum(isinstance(part, torch.Tensor) for part in parts) > 1:
        return NotImplemented
    region: list[range | list[int]] = []
    kept: list[bool] = []
    for part in parts:
        length = target.shape[len(region)] if len(region) < target.dim() else 0
        places = _list_places(part, length)
        if places is None:
            return NotImplemented
        region.append(places)
        kept.append(isinstance(part, slice | torch.Tensor))
    sizes = [len(part) for part in region]
    if 0 in sizes:
        return target
    if not isinstance(value, torch.Tensor):
        value = torch.full((), value, dtype=target.dtype)
    shape = [size for size, keeps in zip(sizes, kept, strict=True) if keeps]
    while value.dim() > len(shape) and value.shape[0] == 1:
        value = value.squeeze(0)
    whole = value.to(target.dtype).expand(shape).reshape(sizes)
    for axis in reversed(range(len(region))):
        around = target
        for other in range(axis):
            around = _take(around, other, region[other])
        whole = _put(around, axis, region[axis], whole)
    return whole


def _list_places(part: Any, length: int) -> range | list[int] | None:
    """List the places of an axis that a part of an index means.

    Returns:
        None where they are not known, or where one stands there twice: torch then gives each value a gradient, also
        those that others replace.
    """
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        return range(start, max(stop, start), step)
    if isinstance(part, FakeTensor) or part is None:
        return None
    if isinstance(part, torch.Tensor):
        if part.dim() != 1 or part.dtype == torch.bool:
            return None
        with torch._C.DisableTorchFunction():
            numbers = part.tolist()
        places = [range(length)[place] for place in numbers]
        return places if len(set(places)) == len(places) else None
    first = int(part) % length
    return range(first, first + 1)


def _take(x: Tensor, axis: int, places: range | list[int]) -> Tensor:
    if isinstance(places, range):
        return slice_along(x, axis, places.start, max(places.stop, places.start), places.step)
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64))


def _put(around: Tensor, axis: int, places: range | list[int], value: Tensor) -> Tensor:
    """Put numbers into places along one axis: between what stands before and after them, or each into its place."""
    length = around.shape[axis]
    if isinstance(places, range) and places.step == 1:
        first, last = slice_along(around, axis, 0, places.start, 1), slice_along(around, axis, places.stop, length, 1)
        pieces = [piece for piece in (first, value, last) if piece.shape[axis] > 0]
        return torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0]
    order = list(range(length))
    for number, place in enumerate(places):
        order[place] = length + number
    return torch.cat([around, value], axis).index_select(axis, torch.tensor(order))
