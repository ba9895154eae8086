"""The weights of each group of a run, and their norms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layered_lr.arrays import Array
from layered_lr.training.loggers.rows import WEIGHT_NORM
from layered_lr.training.run_handle import RunHandle


def weights_by_group(run: RunHandle) -> dict[str, list[Array]]:
    """The parameters of each group that has any, as they are now; waits for the framework."""
    weights = run.weights()
    return {group.name: [weights[name] for name in group.parameters] for group in run.plan.groups if group.parameters}


def weight_norms(groups: Mapping[str, list[Array]]) -> dict[str, float]:
    """The L2 norm of each group's weights, by the number's name in a log."""
    return {
        WEIGHT_NORM + name: float(np.sqrt(sum(_squares(array) for array in arrays))) for name, arrays in groups.items()
    }


def _squares(array: Array) -> float:
    flat = np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)).ravel()
    return float(flat @ flat)
