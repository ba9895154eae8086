"""Adagrad's first sum: of the phase in which a parameter makes its first update, in ``compile`` as in ``run``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import arrays, mlp, mlp_weights, ones, taken, unit_gradients

FIRST, SECOND = (ll.Adagrad(0.5, initial_accumulator_value=value) for value in (8.0, 3.0))
PHASES = [ll.Phase("2 steps", frozen="b", optimizer=FIRST), ll.Phase(optimizer=SECOND)]


def test_in_a_loop_of_ones_own(torch: Any, tmp_path: Path) -> None:
    """The gradient is 1: the first update moves by lr / sqrt(first sum + 1)."""
    model = unit_gradients(torch, ["a", "b"])
    spec = ll.Spec(FIRST, [ll.Group("a"), ll.Group("b")], phases=PHASES)
    optimizer, scheduler = ll.compile(spec, model, total_steps=4)
    steps = []
    for update in range(3):
        optimizer.zero_grad()
        model(ones(torch)).backward()
        optimizer.step()
        scheduler.step()
        steps.append(taken(model, torch))
        if update == 1:  # a saved state changes nothing of it
            ll.save_state(tmp_path / "state", model, optimizer, scheduler)
            ll.load_state(tmp_path / "state", model, optimizer, scheduler)
    assert steps[1][1] == 0.0
    np.testing.assert_allclose(steps[2], [0.5 / math.sqrt(8.0 + 3.0), 0.5 / math.sqrt(3.0 + 1.0)], rtol=1e-6)


def test_in_a_run(backend: Backend, framework_of_backend: Any, torch: Any) -> None:
    """As in torch's loop of one's own, on every backend."""
    phases = [ll.Phase("2 steps", frozen="1", optimizer=FIRST), ll.Phase(optimizer=SECOND)]
    spec = ll.Spec(FIRST, [ll.Group("3"), ll.Group("1")], phases=phases)
    given = {"initial_weights": mlp_weights(), "max_steps": 3, "batch_size": 40, "progress": False, "device": "cpu"}
    result = ll.run(spec, backend.name, mlp(framework_of_backend), arrays(), **given)

    model = mlp(torch)()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in mlp_weights().items()})
    optimizer, scheduler = ll.compile(spec, model, total_steps=3)
    x, y, _, _ = arrays()
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        scheduler.step()
    for name, tensor in model.state_dict().items():
        # float32, three updates; the order of the images in the sum differs
        np.testing.assert_allclose(result.weights[name], tensor.numpy(), rtol=2e-5, atol=1e-6, err_msg=name)
