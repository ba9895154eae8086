"""How torch applies a plan's rates; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from layered_lr.lowering import Lowering
from layered_lr.plans import Plan


def lower(plan: Plan) -> Iterator[Lowering]:
    """torch's optimizers know no ``lr_scale``: each group's rate is set, scaled, before every update."""
    for _ in plan.groups:
        yield Lowering("host", "folded")
