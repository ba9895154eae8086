"""A search for a rate on any backend, in a process of its own where it may abort: what a test reads of it."""

from __future__ import annotations

import layered_lr as ll

SPEC = ll.Spec(
    ll.SGD(0.2, momentum=0.9),
    [ll.Group("1", lr_scale=0.25, name="body"), ll.Group("3", lr=0.1, name="head")],
    ll.CosineDecay(warmup_steps=4),
)
"""With a warm-up from 0, which the search leaves out, and a group with a rate of its own."""


def searched(backend: str, end: float = 30.0) -> dict:  # type: ignore[type-arg]  # it is run from its source alone
    """A search in float64 with torch's model, as ``RateSearch.to_dict`` has it."""
    import torch

    import layered_lr as ll
    from tests.support.models import arrays, mlp
    from tests.support.searches import SPEC

    said = {"backend": backend, "batch_size": 8, "progress": False, "precision": "float64", "data": arrays()}
    return ll.find_lr(SPEC, mlp(torch), start=1e-3, end=end, steps=30, **said).to_dict()
