"""The rates that an eager optimizer applied, as its param groups held them at each update."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan


class AppliedRates:
    """Notes what every param group holds at each update, and reads each parameter's rate from where it really is.

    Args:
        model: Whose parameters are trained.
        members: The parameter objects of each of the optimizer's param groups, one for each part of each group.
    """

    def __init__(self, model: Any, members: Sequence[Iterable[Any]]) -> None:
        holder = {id(tensor): index for index, tensors in enumerate(members) for tensor in tensors}
        self._holder = {parameter.name: holder.get(id(tensor)) for parameter, tensor in parameters_of(model)}
        self._width = len(members)
        self._rates = array("d")

    def record(self, param_groups: Sequence[Any]) -> None:
        """Note the rates of the update that comes."""
        self._rates.extend([group["lr"] for group in param_groups])

    def clear(self) -> None:
        """Forget the updates so far: the next one to be noted is number 0."""
        del self._rates[:]

    def table(self, plan: Plan, start: int, stop: int) -> Float64:
        """The rates of updates ``start`` to ``stop - 1``, shape ``(steps, groups)``.

        Raises:
            RuntimeError: A group's parameters had different rates, or none (it can only be a defect).
        """
        held = np.array(self._rates[start * self._width : stop * self._width]).reshape(-1, self._width)
        table = np.empty((len(held), len(plan.groups)))
        first = 0
        for column, group in enumerate(plan.groups):
            # A group without parameters has the param group in its own place.
            sources = list({self._holder[name] for name in group.parameters} or {first})
            first += len(group.parts)
            if None in sources or any((held[:, source] != held[:, sources[0]]).any() for source in sources):
                raise RuntimeError(f"group {group.name!r}: its parameters were given different rates, or none")
            table[:, column] = held[:, sources[0]]
        return table
