"""What a user may do with the scheduler of ``ll.compile`` that would go wrong without a word."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import ones, taken, unit_gradients

SPEC = ll.Spec(ll.SGD(0.5), [ll.Group("p0", lr_scale=0.5)], ll.StepLR(100))
PHASES = ll.Spec(ll.SGD(0.5), [ll.Group("p0", lr_scale=0.5)], phases=[ll.Phase("3 steps", frozen="p1"), ll.Phase()])


@pytest.mark.parametrize("spec", [SPEC, PHASES], ids=["plain", "phases"])
@pytest.mark.parametrize("number", [85, 0.85, np.float32(0.85), {"accuracy": 0.5}], ids=repr)
def test_a_number_without_a_name_is_refused(framework: Any, spec: ll.Spec, number: Any) -> None:
    """torch's plateau takes it for a metric; it would jump to that update."""
    _, scheduler = ll.compile(spec, unit_gradients(framework, ["p0", "p1"]), total_steps=9)
    rates = scheduler.get_last_lr()
    with pytest.raises(ll.SpecError, match=r"epoch or a metric; say which\. .* by its name, step\(metrics="):
        scheduler.step(number)
    assert scheduler.get_last_lr() == rates


@pytest.mark.parametrize("spec", [SPEC, PHASES], ids=["plain", "phases"])
def test_a_rate_set_by_hand_is_replaced_with_one_warning(framework: Any, spec: ll.Spec) -> None:
    model = unit_gradients(framework, ["p0", "p1"])
    optimizer, scheduler = ll.compile(spec, model, total_steps=9)

    def update() -> list[float]:
        optimizer.zero_grad(set_to_none=True)
        model(ones(framework)).backward()
        optimizer.step()
        return list(taken(model, framework))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # ordinary updates, also into the next phase, warn of nothing
        for _ in range(4):
            update()
            scheduler.step()
        state = scheduler.state_dict()
        scheduler.load_state_dict(state)
        scheduler.step(metrics=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 2.0
    assert update() == [2.0, 2.0]
    with pytest.warns(UserWarning, match="param group 'p0' was set to 2 by hand; .* plan's rate \\(it was 0.25\\)"):
        scheduler.step()
    assert update() == [0.25, 0.5]
    optimizer.param_groups[1]["lr"] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
    assert update() == [0.25, 0.5]
