"""Functions that put numbers into places of a tensor, and those of matrices: diagonals, products over several axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_indices import assign


def scatter_sum(x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    """Add numbers to places along an axis; all shapes are alike elsewhere. A recorder records it as one operator."""
    if has_torch_function((x, index, source)):
        recorded: Tensor = handle_torch_function(scatter_sum, (x, index, source), x, axis, index, source)
        return recorded
    return torch.scatter_add(x, axis, index, source)


def _scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Any:
    if not x.dim() or not index.dim():
        return NotImplemented
    axis = dim % x.dim()
    for other, size in enumerate(index.shape):
        src = src.narrow(other, 0, size)
    region = tuple(slice(None) if other == axis else slice(size) for other, size in enumerate(index.shape))
    made = scatter_sum(x[region], axis, index, src)
    return made if made.shape == x.shape else assign(x, region, made)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Any:
    if not x.dim() or index.dim() != 1:
        return NotImplemented
    axis = dim % x.dim()
    source = source if alpha == 1 else source * alpha
    places = index.long().reshape([-1 if other == axis else 1 for other in range(x.dim())]).expand(source.shape)
    return scatter_sum(x, axis, places, source)


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    axis = dim % max(x.dim(), 1)
    return assign(x, (*(slice(None) for _ in range(axis)), index), source)


def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    if isinstance(index, FakeTensor) or not x.dim():
        return NotImplemented
    axis = dim % x.dim()
    is_chosen = torch.zeros(x.shape[axis], dtype=torch.bool)
    is_chosen[index] = True
    return torch.where(is_chosen.reshape(-1, *(1 for _ in x.shape[axis + 1 :])), value, x)


def _find_diagonal(rows: int, columns: int, offset: int) -> Tensor:
    """Say of each place of a matrix whether it is on a diagonal."""
    return torch.arange(rows).unsqueeze(1) + offset == torch.arange(columns)


def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    last = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = last.shape[-2:]
    length = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    made = torch.where(_find_diagonal(rows, columns, offset), last, 0).sum(-1).to(x.dtype)
    return made.narrow(-1, max(-offset, 0), max(length, 0))


def _last_diagonal(x: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    return _diagonal(x, offset, dim1, dim2)


def _diag_embed(x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    length = x.shape[-1]
    made = torch.where(_find_diagonal(length, length, 0), x.unsqueeze(-1), 0)
    before, after = max(offset, 0), max(-offset, 0)
    return F.pad(made, (before, after, after, before)).movedim((-2, -1), (dim1, dim2))


def _diag(x: Tensor, diagonal: int = 0) -> Tensor:
    return _diag_embed(x, diagonal) if x.dim() == 1 else _diagonal(x, diagonal)


def fill_diagonal(x: Tensor, fill_value: float, wrap: bool = False) -> Any:
    """Give the diagonal of a matrix a number."""
    if wrap or x.dim() != 2:
        return NotImplemented
    return torch.where(_find_diagonal(x.shape[0], x.shape[1], 0), fill_value, x)


def _new_tensor(x: Tensor, data: Any, *, dtype: Any = None) -> Any:
    if isinstance(data, torch.Tensor):
        return data.detach().clone().to(dtype or data.dtype)
    return torch.tensor(data, dtype=dtype or x.dtype)


def _fmod(x: Any, other: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return NotImplemented
    rest = torch.remainder(x.abs(), abs(other))
    return torch.where(x == 0, x, x.sign() * rest)  # where x is 0 it has a gradient too


def _tensordot(x: Tensor, y: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Tensor:
    mine, its = [axis % x.dim() for axis in dims_self], [axis % y.dim() for axis in dims_other]
    kept = [axis for axis in range(x.dim()) if axis not in mine]
    others = [axis for axis in range(y.dim()) if axis not in its]
    count = 1
    for axis in mine:
        count *= x.shape[axis]
    first = x.permute(*kept, *mine).reshape(-1, count)
    second = y.permute(*its, *others).reshape(count, -1)
    return (first @ second).reshape([x.shape[axis] for axis in kept] + [y.shape[axis] for axis in others])


def _inner(x: Tensor, other: Tensor) -> Tensor:
    made: Tensor = _tensordot(x, other, [-1], [-1]) if x.dim() and other.dim() else x * other
    return made


def _cross(x: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        dim = next((axis for axis, size in enumerate(x.shape) if size == 3), -1)
    x, y = torch.broadcast_tensors(x, other)
    made: Tensor = x.roll(-1, dim) * y.roll(-2, dim) - x.roll(-2, dim) * y.roll(-1, dim)
    return made


def _last_cross(x: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    return _cross(x, other, dim)


def _split_along(find_axis: Callable[[Tensor], int]) -> Callable[..., Any]:
    def composite(x: Tensor, sections: Any = None, *, indices: Any = None) -> Any:
        given: Sequence[int] | int = indices if sections is None else sections
        return torch.tensor_split(x, given, find_axis(x))

    return composite


def _take(x: Tensor, index: Tensor) -> Tensor:
    made: Tensor = x.flatten()[index]
    return made


def _take_along(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return torch.gather(x.flatten(), 0, indices.flatten())
    axis = dim % x.dim()
    wanted = torch.broadcast_shapes(
        *([1 if other == axis else size for other, size in enumerate(each.shape)] for each in (x, indices))
    )
    x, indices = (
        each.expand([each.shape[axis] if other == axis else size for other, size in enumerate(wanted)])
        for each in (x, indices)
    )
    return torch.gather(x, axis, indices)


SCATTERING: Final[dict[str, Callable[..., Any]]] = {
    "scatter_add": _scatter_add,
    "index_add": _index_add,
    "index_copy": _index_copy,
    "index_fill": _index_fill,
    "take": _take,
    "take_along_dim": _take_along,
    "diagonal": _diagonal,
    "linalg_diagonal": _last_diagonal,
    "diag": _diag,
    "diag_embed": _diag_embed,
    "trace": lambda x: _diagonal(x).sum(),
    "new_tensor": _new_tensor,
    "fmod": _fmod,
    "sgn": lambda x: x.sign(),
    "tensordot": _tensordot,
    "inner": _inner,
    "cross": _cross,
    "linalg_cross": _last_cross,
    "hsplit": _split_along(lambda x: 0 if x.dim() == 1 else 1),
    "vsplit": _split_along(lambda x: 0),
    "dsplit": _split_along(lambda x: 2),
}
