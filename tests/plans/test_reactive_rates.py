"""What reactive schedules read of the metrics that they are given."""

from __future__ import annotations

from collections.abc import Mapping

import layered_lr as ll
from layered_lr.plans.reactive_rates import LiveRates


def test_groups_with_one_function_of_metrics_share_one_call_of_it() -> None:
    calls = []

    def count(metrics: Mapping[str, float]) -> float:
        calls.append(metrics["loss"])
        return float(len(calls))

    plateau = ll.ReduceLROnPlateau(factor=0.5, patience=0, metric=count)
    slower = ll.ReduceLROnPlateau(factor=0.5, patience=1, metric=count)
    spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("a.*"), ll.Group("b.*", schedule=slower)], schedule=plateau)
    live = LiveRates(ll.resolve(spec, [("a.weight", (2,)), ("b.weight", (2,)), ("c.weight", (2,))], total_steps=9))
    for loss in (3.0, 2.0, 1.0):
        live.observe({"loss": loss}, "epoch")
    assert calls == [3.0, 2.0, 1.0]
    assert live.rates(3) == [0.025, 0.05, 0.025]


def test_what_was_read_is_what_schedules_look_at() -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau(factor=0.5, patience=0))
    live, told = (LiveRates(ll.resolve(spec, [("a.weight", (2,))], total_steps=9)) for _ in range(2))
    for loss in (2.0, 3.0):
        told.observe(live.read({"loss": loss}), "epoch")
    assert (live.rates(2), told.rates(2)) == ([0.1], [0.05])
