"""Phases on OneFlow: what is frozen stays as it is, and the rest goes on as if nothing else had happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.backends.isolation import value_of


def timeline(name: str, parts: int, case: str) -> dict[str, float]:
    """Freeze the first layers, then the last, then train all of them; what moved that must not, and what did not."""
    import numpy as np

    import layered_lr as ll
    from layered_lr.backend import Extras
    from layered_lr.registry import load_backend
    from layered_lr.timeline import open_session
    from layered_lr_oneflow.runtime import flow
    from tests.backends import optimizer_cases as cases
    from tests.backends import state_cases as runs

    backend = load_backend(name, "cpu")
    groups = [ll.Group(["1", "2"], lr_scale=0.5, name="body"), ll.Group("4", name="head")]
    phases = [ll.Phase(3, frozen="body"), ll.Phase(6, frozen="head"), ll.Phase()]
    clip = {"clip_grad_norm": 0.5} if parts == 1 else {}
    spec = ll.Spec(cases.CASES[case], groups, ll.StepLR(2, 0.8), phases=phases, **clip)
    model = backend.build(runs.normed(flow), runs.CLASSES, 0.0, 0)
    backend.load(model, runs.start())
    plan = ll.resolve(spec, model, total_steps=9)
    session = open_session(backend, plan, model, runs.CLASSES, Extras(parts, grad_norms=True))
    wrong = 0.0
    counts: dict[str, int] = {}
    for at in range(9):
        before, slots = session.weights(), session.export_state().slots
        runs.update(session, at)
        after, later = session.weights(), session.export_state().slots
        frozen = {"body": ("1.", "2."), "head": ("4.",)}.get(["body", "head", ""][at // 3], ("none",))
        for key, array in after.items():
            still = key.startswith(frozen)
            wrong += float(still == (not np.array_equal(array, before[key])))
            if still and key in slots:
                wrong += float(any(not np.array_equal(slots[key][slot], later[key][slot]) for slot in slots[key]))
            if not still and key in later and "step" in later[key]:
                counts[key] = counts.get(key, 0) + 1
                wrong += abs(float(later[key]["step"]) - counts[key])
    rates, norms = session.rates(0, 9), session.grad_norms(0, 9)
    table = plan.table(0, 9)
    wrong += float(np.abs(rates - table).max() > 1e-7 * table.max())
    wrong += float((norms[:3, 0] != 0).any() + (norms[3:6, 1] != 0).any() + (norms[6:] == 0).any())
    return {"wrong": wrong, "tracked": float(session.weights()["2.num_batches_tracked"])}


@pytest.mark.parametrize("case", ["SGD nesterov", "SGD dampening", "AdamW", "RMSprop odd", "Adagrad odd"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", ["oneflow-eager", pytest.param("oneflow-graph", marks=pytest.mark.slow)])
def test_frozen_is_bitwise_still(oneflow: Any, name: str, parts: int, case: str) -> None:
    """Weights, statistics and slots of what is frozen; counts are each parameter's own; its rate and norm are 0."""
    assert value_of(timeline, name, parts, case) == {"wrong": 0.0, "tracked": 6.0 * parts}
