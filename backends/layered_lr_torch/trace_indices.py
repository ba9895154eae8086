"""``x[...]`` and ``x[...] = y`` of a model that is being recorded, as slices, selections and shapes."""

from __future__ import annotations

from typing import Any

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
    """Compute ``x[index]`` for slices, whole numbers, None, and tensors of whole numbers side by side."""
    parts = _list_parts(x, index)
    if parts is None:
        return NotImplemented
    axis = 0
    shape: list[int] = []  # of the result; axes that a whole number takes are left out
    gathered: list[tuple[int, Tensor]] = []
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        if isinstance(part, torch.Tensor):
            gathered.append((axis, part))
            if len(gathered) == 1:
                shape.append(-1)
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
    if gathered:
        x, picked = _gather(x, gathered)
        if x is None:
            return NotImplemented
        place = shape.index(-1)
        shape[place : place + 1] = picked
    return x.reshape(shape)


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
        if isinstance(part, list):
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
    """Take what tensors of whole numbers say, on axes side by side; returns the result and the shape of the places."""
    first = gathered[0][0]
    axes = [axis for axis, _ in gathered]
    if axes != list(range(first, first + len(axes))):
        return None, ()
    if len(axes) > 1 and any(x.shape[axis] < 1 for axis in axes):
        return None, ()
    indices = torch.broadcast_tensors(*(index for _, index in gathered)) if len(axes) > 1 else (gathered[0][1],)
    flat: Any = 0
    for axis, index in zip(axes, indices, strict=True):
        length = x.shape[axis]
        index = torch.where(index < 0, index + length, index).long()
        if len(axes) > 1:  # each is looked up by itself, so that a place out of range is found that is none of ``flat``
            index = torch.arange(length).index_select(0, index.reshape(-1)).reshape(index.shape)
        flat = flat * length + index
    merged = x.reshape(*x.shape[:first], -1, *x.shape[first + len(axes) :])
    return merged.index_select(first, flat.reshape(-1)), tuple(indices[0].shape)


def assign(target: Tensor, index: Any, value: Any) -> Any:
    """Compute what a tensor becomes under ``target[index] = value``, for slices and whole numbers, and for masks."""
    if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            return NotImplemented
        mask = index.reshape(*index.shape, *(1 for _ in range(target.dim() - index.dim())))
        return torch.where(mask, value, target)
    parts = _list_parts(target, index)
    if parts is None:
        return NotImplemented
    region: list[slice] = []
    kept: list[bool] = []
    for part in parts:
        if part is None or isinstance(part, torch.Tensor):
            return NotImplemented
        length = target.shape[len(region)]
        if isinstance(part, slice):
            start, stop, step = part.indices(length)
            if step != 1:
                return NotImplemented
            region.append(slice(start, max(stop, start)))
        else:
            region.append(slice(int(part) % length, int(part) % length + 1))
        kept.append(isinstance(part, slice))
    sizes = [part.stop - part.start for part in region]
    if not isinstance(value, torch.Tensor):
        value = torch.full((), value, dtype=target.dtype)
    shape = [size for size, keeps in zip(sizes, kept, strict=True) if keeps]
    value = value.to(target.dtype).expand(shape).reshape(sizes)
    whole = value
    for axis in reversed(range(len(region))):  # on each axis: what stands before the region, it, what stands after it
        part, around = region[axis], target
        for other in range(axis):
            around = slice_along(around, other, region[other].start, region[other].stop, 1)
        length = target.shape[axis]
        pieces = [slice_along(around, axis, 0, part.start, 1), whole, slice_along(around, axis, part.stop, length, 1)]
        pieces = [piece for piece in pieces if piece.shape[axis] > 0]
        whole = torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0]
    return whole
