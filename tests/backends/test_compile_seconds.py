"""A graph's session says what compiling took."""

from __future__ import annotations

from typing import Any

from tests.support.isolation import values_of


def seconds_after_each_update(parts: int) -> list[float | None]:
    import numpy as np

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from layered_lr.backend.session import Extras
    from layered_lr_oneflow.runtime import flow

    backend = load_backend("oneflow-graph", "cpu")
    model = backend.build(lambda: flow.nn.Sequential(flow.nn.Flatten(), flow.nn.Linear(12, 3)), 3, 0.0, 0)
    plan = ll.resolve(ll.Spec(ll.SGD(lr=0.1)), model, total_steps=3)
    session: Any = backend.open(plan, model, 3, Extras(accumulate_steps=parts))
    images, labels = np.ones((4, 3, 2, 2), np.float32), np.zeros(4, np.int64)
    seconds = [session.compile_seconds]
    for _ in range(2):
        session.losses([session.train_step(images, labels, parts)])
        seconds.append(session.compile_seconds)
    return seconds


def test_the_first_update_compiles_and_no_other(oneflow: Any) -> None:
    for before, first, second in values_of(seconds_after_each_update, [(parts,) for parts in (1, 2)]):
        assert before is None
        assert first is not None and 0.0 < first == second
