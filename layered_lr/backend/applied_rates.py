"""The rates that an eager optimizer applied, as its param groups had them at each update."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.models.nn_modules import Module, Tensor, parameters_of
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.plan import Plan


class AppliedRates:
    """Records the rate of every param group at each update, and finds each parameter's rate in its real param group.

    Args:
        model: The model that is trained.
        members: The parameter objects of each of the optimizer's param groups, in any order.
        owners: For each param group the index of its group in the plan.
    """

    def __init__(self, model: Module, members: Sequence[Iterable[Tensor]], owners: Sequence[int]) -> None:
        holder = {id(tensor): index for index, tensors in enumerate(members) for tensor in tensors}
        self._holder = {parameter.name: holder.get(id(tensor)) for parameter, tensor in parameters_of(model)}
        self._width = len(members)
        self._first = {owner: index for index, owner in reversed(list(enumerate(owners)))}
        self._rates = array("d")

    def record(self, param_groups: Sequence[Mapping[str, Any]]) -> None:
        """Record the rates of the next update.

        Args:
            param_groups: The optimizer's param groups.
        """
        self._rates.extend([group["lr"] for group in param_groups])

    def clear(self) -> None:
        """Forget all updates so far; the next update that is recorded is number 0."""
        del self._rates[:]

    def table(self, plan: Plan, start: int, stop: int) -> Float64:
        """Return the rates of updates ``start`` to ``stop - 1``, shape ``(steps, groups)``.

        Raises:
            RuntimeError: The parameters of a group had different rates, or none. This is a bug of the library.
        """
        held = np.array(self._rates[start * self._width : stop * self._width]).reshape(-1, self._width)
        table = np.empty((len(held), len(plan.groups)))
        by_hand = find_frozen_by_hand(plan.parameters)  # which an optimizer may lack
        for column, group in enumerate(plan.groups):
            # A group without parameters also has a param group.
            holders = {self._holder[name] for name in group.parameters if name not in by_hand}
            sources = list(holders or {self._first.get(column)})
            if None in sources or any((held[:, source] != held[:, sources[0]]).any() for source in sources):
                raise RuntimeError(f"group {group.name!r}: its parameters had different rates, or none")
            table[:, column] = held[:, sources[0]]
        return table
