"""Distances between points, and places in images, written with functions that a traced model has operators for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.nn import functional as F

from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_layers import root, vector_norm

_FEW: Final = 25
"""Points from which torch takes Euclidean distances by a matrix product."""


def pairwise_distances(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: Any = None) -> Any:
    """``torch.cdist``: distances of each row of one tensor from each row of the other, shapes (…, P, M), (…, R, M).

    Of many rows, Euclidean ones are taken by a product, as in torch, else from the differences. As many rows on both
    sides may be the batch's own, and are taken from the differences, whatever their number.
    """
    rows = y.shape[-2]
    if p != 2 or rows <= _FEW or rows == x.shape[-2] or compute_mode == "donot_use_mm_for_euclid_dist":
        return vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)
    squares = x.square().sum(-1, True) + y.square().sum(-1).unsqueeze(-2)
    return root(torch.clamp(squares - 2 * (x @ y.transpose(-1, -2)), min=0))


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """The places that ``F.affine_grid`` gives, shape (N, …, axes), from matrices of shape (N, axes, axes + 1)."""
    sizes, axes = list(size[2:]), len(size) - 2
    places = F.affine_grid(torch.eye(axes, axes + 1, dtype=theta.dtype).unsqueeze(0), [1, 1, *sizes], align_corners)
    rows = F.pad(places.reshape(1, math.prod(sizes), axes), (0, 1), value=1.0)
    return (rows @ theta.transpose(1, 2)).reshape(theta.shape[0], *sizes, axes)
