"""A rate that a search suggests, with a spec to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layered_lr.spec.spec import Spec


@dataclass(frozen=True)
class RateSuggestion:
    """A rate that a search suggests.

    Args:
        name: ``steepest`` (where the loss falls fastest), ``valley`` (two thirds down the longest fall), or ``tenth``
            (a tenth of the rate of the lowest loss).
        lr: The rate: the spec's ``lr``, or that of the group that was searched for.
        step: The update of the search whose rate is nearest.
        rates: Each group's rate there, by the group's name.
        spec: The spec that was searched with, at these rates, ready to run.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.2))
        >>> ll.RateSuggestion("tenth", 0.2, 5, {"rest": 0.2}, spec).lr
        0.2
    """

    name: str
    lr: float
    step: int
    rates: Mapping[str, float]
    spec: Spec = field(repr=False)
