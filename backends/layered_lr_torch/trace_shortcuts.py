"""Shapes of results that torch finds slowly on fake tensors, because it takes the function apart there.

A trace needs no more of a result than its shape, dtype and layout. Each shortcut knows the usual calls of one function,
on contiguous images and weights that fit; it leaves all others to torch, which also says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from layered_lr_torch.torch_types import Tensor

Shortcut = Callable[..., "Tensor | None"]


def _batch_norm(x: Tensor, *_: Any) -> Tensor:
    return _make_like(x)


def _make_like(x: Tensor) -> Tensor:
    return x.clone() if x.requires_grad else torch.empty_like(x)  # each is one operator, and a trace takes long for one


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, *_: Any) -> Tensor | None:
    count = len(shape) if isinstance(shape, tuple | list) else 0
    fits = bool(count) and tuple(x.shape[-count:]) == tuple(shape) and x.is_contiguous()
    scales = (each for each in (weight, bias) if each is not None)
    fits = fits and all(each.shape == x.shape[-count:] and each.dtype == x.dtype for each in scales)
    return _make_like(x) if fits else None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    fits = x.dim() > 1 and weight.dim() == 2 and x.is_contiguous() and x.dtype == weight.dtype
    fits = fits and x.shape[-1] == weight.shape[1]
    if bias is not None:
        fits = fits and bias.dtype == x.dtype and bias.shape == weight.shape[:1]
    return x.new_empty((*x.shape[:-1], weight.shape[0])) if fits else None


def _conv2d(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor | None:
    pairs = (_pair(stride), _pair(padding), _pair(dilation))
    fits = x.dim() == weight.dim() == 4 and x.is_contiguous() and weight.is_contiguous() and x.dtype == weight.dtype
    if not fits or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    if bias is not None and (bias.dtype != x.dtype or bias.shape != weight.shape[:1]):
        return None
    steps, pads, apart = pairs
    if steps is None or pads is None or apart is None:
        return None
    spatial = [
        (x.shape[axis + 2] + 2 * pads[axis] - apart[axis] * (weight.shape[axis + 2] - 1) - 1) // steps[axis] + 1
        for axis in range(2)
    ]
    return x.new_empty((x.shape[0], weight.shape[0], *spatial)) if min(spatial) > 0 else None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(each, int) for each in value):
        return value[0], value[1]
    return None


_SHORTCUTS: Final[Mapping[Any, Shortcut]] = {
    torch.batch_norm: _batch_norm,
    torch.layer_norm: _layer_norm,
    torch.nn.functional.linear: _linear,
    torch.conv2d: _conv2d,
}


def find_result(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Find a tensor like the result of a function, where there is a shortcut; the numbers in it mean nothing.

    Args:
        func: Of torch.
        args: Its arguments; tensors are fake ones.
        kwargs: Named arguments. With any of them torch does it.
    """
    shortcut = _SHORTCUTS.get(func) if func in _SHORTCUTS and not kwargs else None
    if shortcut is None or not all(isinstance(each, torch.Tensor) for each in args[:1]):
        return None
    made = shortcut(*args)
    if made is None or made.requires_grad or not torch.is_grad_enabled():
        return made
    # What is asked of a result is not only its shape: a branch may follow ``requires_grad``.
    trains = any(isinstance(each, torch.Tensor) and each.requires_grad for each in args)
    return made.requires_grad_().clone() if trains else made
