"""A small network, 50 steps on every backend: all weights agree, and planted faults do not pass for agreement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from tests.support.models import arrays, largest_difference, mlp, mlp_weights

STEPS, BATCH = 50, 16
# Some tens of float32 roundings (6e-8 of weights around 1) of a problem that does not amplify them.
TOLERANCE = 1e-5

OPTIMIZERS = {
    "plain": ll.SGD(lr=0.1),
    "momentum": ll.SGD(lr=0.05, momentum=0.9),
    "nesterov": ll.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "weight decay": ll.SGD(lr=0.1, weight_decay=0.05),
    "all of it": ll.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
}
GROUPS = (
    ll.Group("1.weight", name="first", lr_scale=0.3, schedule=ll.StepLR(step_size=7, gamma=0.8)),
    ll.Group("*.bias", name="biases", lr=0.02, weight_decay=0.0, schedule=ll.StepLR(step_size=20, gamma=0.0)),
)
SCHEDULE = ll.StepLR(step_size=2, gamma=0.5, unit="epoch")
OTHERS = ["torch-compile", "oneflow-eager", "oneflow-graph"]


def spec_of(optimizer: ll.Optimizer) -> ll.Spec:
    return ll.Spec(optimizer=optimizer, groups=GROUPS, schedule=SCHEDULE)


RESULTS: dict[tuple[str, ll.Spec], ll.Result] = {}


def run(frameworks: dict[str, Any], backend: str, spec: ll.Spec) -> ll.Result:
    """A backend's run, made once: several tests look at it."""
    if (backend, spec) not in RESULTS:
        RESULTS[backend, spec] = ll.run(
            spec,
            backend,
            mlp(frameworks[backend.split("-")[0]]),
            arrays(20 * BATCH),
            max_steps=STEPS,
            batch_size=BATCH,
            initial_weights=mlp_weights(),
            device="cpu",
            progress=False,
        )
    return RESULTS[backend, spec]


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_backend_ends_at_the_same_weights(frameworks: dict[str, Any], optimizer: ll.Optimizer) -> None:
    reference = run(frameworks, "torch-eager", spec_of(optimizer))
    assert largest_difference(reference.weights, mlp_weights()) > 100 * TOLERANCE, "it has trained"
    for name in OTHERS:
        result = run(frameworks, name, spec_of(optimizer))
        assert largest_difference(result.weights, reference.weights) < TOLERANCE, name
        np.testing.assert_allclose(result.losses, reference.losses, rtol=TOLERANCE, err_msg=name)
        for group, rates in result.rates.items():
            np.testing.assert_allclose(rates, reference.rates[group], rtol=1e-6, err_msg=f"{name}, {group}")


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_oneflows_graph_is_bitwise_its_eager_mode(frameworks: dict[str, Any], optimizer: ll.Optimizer) -> None:
    """Native schedules, a table, and scales that are no float32."""
    eager, graph = (run(frameworks, name, spec_of(optimizer)) for name in ("oneflow-eager", "oneflow-graph"))
    assert eager.losses.tolist() == graph.losses.tolist()
    assert largest_difference(eager.weights, graph.weights) == 0


def by_hand(torch: Any, optimizer: ll.SGD, shift: int = 0) -> dict[str, NDArray[Any]]:
    """torch alone: its own model, param groups, and rates written down as Python numbers.

    Args:
        shift: By how many steps the first group's rate is early at step 13.
    """
    from layered_lr.data import Batches

    model = mlp(torch)()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(mlp_weights()[name]))
    rule = {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov, "weight_decay": optimizer.weight_decay}
    groups = [
        {"params": [model[1].weight]},
        {"params": [model[1].bias, model[3].bias], "weight_decay": 0.0},
        {"params": [model[3].weight]},
    ]
    update = torch.optim.SGD(groups, lr=optimizer.lr, **rule)
    batches = Batches(ll.load_dataset(arrays(20 * BATCH)), BATCH, seed=0)
    stream = (batch for epoch in range(3) for batch in batches.epoch(epoch))
    for step, (images, labels) in zip(range(STEPS), stream, strict=False):
        early = shift if step == 13 else 0
        rates = [
            optimizer.lr * 0.8 ** ((step + early) // 7) * 0.3,
            0.02 if step < 20 else 0.0,
            optimizer.lr * 0.5 ** (step // 20 // 2),
        ]
        for group, rate in zip(update.param_groups, rates, strict=True):
            group["lr"] = rate
        update.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        update.step()
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_torch_by_hand_ends_there_too(frameworks: dict[str, Any], optimizer: ll.SGD) -> None:
    result = run(frameworks, "torch-eager", spec_of(optimizer))
    assert largest_difference(result.weights, by_hand(frameworks["torch"], optimizer)) < 1e-6


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-eager", "oneflow-graph"])
def test_one_rate_that_is_a_step_early_is_found(frameworks: dict[str, Any], name: str) -> None:
    """One of 50 steps of one of three groups: that is enough to be told from rounding."""
    optimizer = OPTIMIZERS["momentum"]
    result = run(frameworks, name, spec_of(optimizer))
    assert largest_difference(result.weights, by_hand(frameworks["torch"], optimizer)) < TOLERANCE
    assert largest_difference(result.weights, by_hand(frameworks["torch"], optimizer, shift=1)) > 2 * TOLERANCE


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-eager", "oneflow-graph"])
def test_a_forgotten_lr_scale_is_found(frameworks: dict[str, Any], name: str) -> None:
    spec = spec_of(OPTIMIZERS["momentum"])
    faulty = replace(spec, groups=(replace(GROUPS[0], lr_scale=1.0), GROUPS[1]))
    reference, wrong = run(frameworks, "torch-eager", spec), run(frameworks, name, faulty)
    assert largest_difference(wrong.weights, reference.weights) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-eager", "oneflow-graph"])
def test_a_schedule_that_is_a_step_early_is_found(frameworks: dict[str, Any], name: str) -> None:
    spec = spec_of(OPTIMIZERS["momentum"])
    early = replace(GROUPS[0], schedule=ll.StepLR(step_size=6, gamma=0.8))
    faulty = replace(spec, groups=(early, GROUPS[1]))
    reference, wrong = run(frameworks, "torch-eager", spec), run(frameworks, name, faulty)
    assert largest_difference(wrong.weights, reference.weights) > 100 * TOLERANCE
