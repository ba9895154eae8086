"""What a run has measured so far, update by update; it goes into checkpoints and comes back out of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.schedules import Float64

_SERIES = ("losses", "accuracies", "ema_accuracies", "rate_factors")
_TABLES = ("rates", "planned", "grad_norms")


@dataclass
class History:
    """Everything measured so far.

    Args:
        groups: How many the plan has.
        losses: Before each update whose loss is known.
        accuracies: After each epoch.
        ema_accuracies: Likewise, of the moving average.
        rate_factors: What a rollback had multiplied the planned rates with, of each update that ``rates`` has.
        rates: Each group's, as tables of updates one after the other.
        planned: Likewise, as the plan had it then.
        grad_norms: Likewise; none where they are not measured.
    """

    groups: int
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    ema_accuracies: list[float] = field(default_factory=list)
    rate_factors: list[float] = field(default_factory=list)
    rates: list[Float64] = field(default_factory=list)
    planned: list[Float64] = field(default_factory=list)
    grad_norms: list[Float64] = field(default_factory=list)

    def table(self, name: str) -> Float64:
        """``rates``, ``planned`` or ``grad_norms`` in one piece, shape (updates, groups)."""
        pieces: list[Float64] = getattr(self, name)
        if len(pieces) > 1:
            pieces[:] = [np.concatenate(pieces)]
        return pieces[0] if pieces else np.empty((0, self.groups))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, by name; see ``TrainingState.history``."""
        series = {name: np.array(getattr(self, name), dtype=np.float64) for name in _SERIES}
        return series | {name: self.table(name) for name in _TABLES}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], groups: int) -> History:
        """What ``arrays`` gave; nothing where there is nothing.

        Args:
            arrays: By name.
            groups: Of the plan that goes on. Tables of another number of groups say nothing of these: NaN.
        """
        series: dict[str, Any] = {name: arrays[name].tolist() for name in _SERIES if name in arrays}
        tables: dict[str, Any] = {name: [_of_groups(arrays[name], groups)] for name in _TABLES if name in arrays}
        return cls(groups, **series, **tables)


def _of_groups(table: NDArray[Any], groups: int) -> Float64:
    return table if table.shape[1] == groups else np.full((len(table), groups), np.nan)
