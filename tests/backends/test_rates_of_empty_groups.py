"""The rate of a group without parameters is its own, wherever the optimizer puts its param group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import arrays, mlp

OPTIMIZERS = {
    "native": ll.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "composed on OneFlow": ll.AdamW(0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("accumulate_steps", [1, 2])
@pytest.mark.parametrize("moves", [False, True], ids=["still", "cycled"])
def test_rates_of_an_empty_group_behind_a_group_in_two_parts(
    backend: Backend, framework_of_backend: Any, optimizer: Any, accumulate_steps: int, moves: bool
) -> None:
    """``no_weight_decay`` cuts 'head' and 'body' in two; each empty group is behind one of them."""
    schedule = ll.Table([3.0, 2.0, 1.0], factor=True) if moves else ll.ExponentialLR(0.5)
    groups = [
        ll.Group("3", name="head", lr_scale=0.002),
        ll.Group("none", optional=True, lr=0.7),
        ll.Group("1", name="body", lr_scale=0.5),
        ll.Group("gone", optional=True, lr_scale=5.0, schedule=schedule),
    ]
    spec = ll.Spec(optimizer, groups, no_weight_decay="1d")
    result = ll.run(
        spec,
        backend.name,
        mlp(framework_of_backend),
        arrays(),
        max_steps=3,
        batch_size=8,
        accumulate_steps=accumulate_steps,
        progress=False,
        device="cpu",
    )
    for name, planned in result.planned().items():
        # OneFlow holds rates in float32, and multiplies them by lr_scale there
        np.testing.assert_allclose(result.rates[name], planned, rtol=3e-7, err_msg=name)
    assert result.rates["none"][0] == pytest.approx(0.7, rel=1e-6)
