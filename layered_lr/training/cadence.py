"""How often a checkpoint is written: every so many updates, epochs or seconds."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.printed import shown

_EVERY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:(step|epoch|second|minute)s?)?\s*")


class Cadence(NamedTuple):
    """A period: so many updates, epochs or seconds.

    Args:
        number: How many, above 0.
        unit: ``"step"``, ``"epoch"`` or ``"second"``.
    """

    number: float
    unit: str

    def is_due(self, step: int, last_step: int, steps_per_epoch: int, seconds: float) -> bool:
        """Whether it is time.

        Args:
            step: Updates made.
            last_step: Updates that had been made at the last checkpoint.
            steps_per_epoch: Updates of an epoch.
            seconds: Seconds since the last checkpoint.
        """
        if self.unit == "second":
            return seconds >= self.number
        period = max(1, round(self.number * (steps_per_epoch if self.unit == "epoch" else 1)))
        return step // period > last_step // period


def cadence(value: Any) -> Cadence:
    """Read a cadence.

    Args:
        value: ``"1 epoch"``, ``"100 steps"``, ``"30 seconds"``, ``"5 minutes"``, or a whole number of updates, as text
            too.

    Raises:
        SpecError: Anything else.
    """
    if not isinstance(value, str):
        return Cadence(whole_number("checkpoint_every", value, 1), "step")
    found = _EVERY.fullmatch(value)
    unit = found[2] or "step" if found else ""
    if found is None or float(found[1]) == 0 or (unit == "step" and not float(found[1]).is_integer()):
        raise SpecError(
            f"checkpoint_every={shown(value)}: must be a time, such as '1 epoch', '100 steps' or '30 seconds', or a "
            "whole number of updates."
        )
    if unit == "minute":
        return Cadence(60 * float(found[1]), "second")
    return Cadence(float(found[1]), unit)
