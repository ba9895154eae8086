"""Notices when a user sets rates in param groups during training: the scheduler's next step overwrites them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any


class HandRates:
    """Warns once of a rate that the scheduler did not set."""

    def __init__(self) -> None:
        self._has_warned = False

    def look(self, param_groups: Sequence[Mapping[str, Any]], applied: list[Any]) -> None:
        """Compare the rates of param groups with those that the scheduler set last.

        Args:
            param_groups: Those of the plan.
            applied: At least one rate for each of them.
        """
        if self._has_warned:
            return
        rates = [group["lr"] for group in param_groups]
        if set(map(type, rates)) == {float} and rates == applied[: len(rates)]:  # nearly always, and far quicker
            return
        for group, rate in zip(param_groups, applied, strict=False):
            if isinstance(group["lr"], float | int) and group["lr"] != rate:  # a tensor may be on a device: no waiting
                self._has_warned = True
                warnings.warn(
                    f"the lr of param group {group['name']!r} was set to {float(group['lr']):g} by hand; "
                    f"scheduler.step() replaces it by the plan's rate (it was {float(rate):g}). To change rates while "
                    "training, give the group a schedule such as Function or ReduceLROnPlateau.",
                    UserWarning,
                    stacklevel=3,
                )
                return
