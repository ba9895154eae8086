"""Muon, which makes the update of a matrix orthogonal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import numpy as np

from layered_lr.optimizers import Muon
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.rules.base import (
    RateAndMomentum,
    Scalars,
    ScalarsAndCounters,
    SlotTensors,
    UpdateRule,
    assign,
    lerp,
)
from layered_lr_oneflow.runtime import flow


@final
class MuonRule(UpdateRule[Muon]):
    """``torch.optim.Muon``."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Names of the slots, and the number that fills each at first."""
        return {"momentum_buffer": 0.0}

    def compute_scalars(self, numbers: RateAndMomentum, counters: Scalars) -> ScalarsAndCounters:
        """Compute the numbers of one update, in float64."""
        kept = 1 - numbers.rate * self.optimizer.weight_decay
        return {"rate": numbers.rate, "kept": kept, "momentum": numbers.momentum, "share": 1 - numbers.momentum}, {}

    def update(self, parameter: Tensor, gradient: Tensor, slots: SlotTensors, scalars: Scalars) -> None:
        """Dispatch the ops of one update."""
        mean = lerp(slots["momentum_buffer"], gradient, scalars["share"])
        assign(slots["momentum_buffer"], mean)
        direction = lerp(gradient, mean, scalars["momentum"]) if self.optimizer.nesterov else mean
        rows = parameter.shape[0]
        matrix = flow.reshape(direction, (rows, -1))
        update = make_orthogonal(matrix, self.optimizer) * _compute_ratio(self.optimizer, rows, matrix.shape[1])
        moved = flow.reshape(update.to(parameter.dtype), tuple(parameter.shape)) * scalars["rate"]
        assign(parameter, parameter * scalars["kept"] - moved)


def make_orthogonal(matrix: Tensor, optimizer: Muon) -> Tensor:
    """Compute the nearly orthogonal matrix of torch's Muon, in float64 with every result rounded to bfloat16.

    torch multiplies matrices of bfloat16, adds in float32 and rounds each result. Adding in float64 gives the same,
    except where the order of torch's sum decides the rounding.
    """
    a, b, c = optimizer.ns_coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = _round(matrix)
    if is_tall:
        found = flow.transpose(found, 0, 1)
    size = _round(flow.sqrt((found * found).sum()))
    found = _round(found / flow.clamp(size, min=_round_number(optimizer.eps)))
    for _ in range(optimizer.ns_steps):
        gram = _round(flow.matmul(found, flow.transpose(found, 0, 1)))
        change = _round(gram * b + flow.matmul(gram, gram) * c)
        found = _round(found * a + flow.matmul(change, found))
    return flow.transpose(found, 0, 1) if is_tall else found


def _round(tensor: Tensor) -> Tensor:
    """Round to bfloat16 as torch does, which goes by float32; the result is float64."""
    return tensor.to(flow.float32).to(flow.bfloat16).to(flow.float32).to(flow.float64)


def _round_number(number: float) -> float:
    """Round a positive number to bfloat16: to the nearest, and to an even last digit where two are as near."""
    bits = int(np.float32(number).view(np.uint32))
    return float(np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32))


def _compute_ratio(optimizer: Muon, rows: int, columns: int) -> float:
    """Compute the factor of the rate that depends on the matrix's shape."""
    if optimizer.adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    if optimizer.adjust_lr_fn == "spectral_unclamped":
        return math.sqrt(rows / columns)
    return math.sqrt(max(1, rows / columns))
