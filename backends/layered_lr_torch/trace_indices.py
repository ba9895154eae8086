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
