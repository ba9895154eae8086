"""Every operator of a traced model, as a function of OneFlow 0.9: each by its name in ``graph_operators.OPERATORS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from layered_lr_oneflow.operators.arithmetic import ARITHMETIC
from layered_lr_oneflow.operators.layers import LAYERS
from layered_lr_oneflow.operators.pooling import POOLING
from layered_lr_oneflow.operators.reductions import REDUCTIONS
from layered_lr_oneflow.operators.shapes import SHAPES

Function: TypeAlias = Callable[..., Any]

FUNCTIONS: Final[Mapping[str, Function]] = {**ARITHMETIC, **LAYERS, **POOLING, **REDUCTIONS, **SHAPES}
"""Each takes the operator's arguments by position, in the order of ``OPERATORS``; no random ones, no ``batch_norm``."""

__all__ = ["FUNCTIONS", "Function"]
