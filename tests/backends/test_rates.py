"""The rates that act, seen in the weights of a model whose gradients are all 1, against the plan and torch itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from tests.support.applied_rates import (
    NAMES,
    STEPS,
    STEPS_PER_EPOCH,
    TOLERANCE,
    applied,
    planned,
    through_attach,
    through_compile,
)
from tests.support.models import ones, taken, unit_gradients
from tests.support.widths import keep_some


def random_schedule(rng: np.random.Generator) -> ll.Schedule | None:
    gamma = float(rng.choice([0.0, 1.0, 0.5, 1.7, rng.uniform(0.01, 0.99), rng.uniform(1, 3)]))
    unit = ["step", "epoch"][rng.integers(2)]
    kinds = [None, ll.Constant(), *[ll.StepLR(step_size=int(rng.integers(1, 6)), gamma=gamma, unit=unit)] * 4]
    return kinds[rng.integers(len(kinds))]


def random_spec(seed: int) -> ll.Spec:
    """Six groups, two parameters left to ``rest``, an empty group here and there."""
    rng = np.random.default_rng(seed)

    def positive() -> float:
        return float(10 ** rng.uniform(-6, 2))

    groups = []
    for name in rng.permutation(NAMES)[:6]:
        own = bool(rng.integers(2))
        groups.append(
            ll.Group(
                str(name),
                lr=[None, 0.0, positive(), positive()][rng.integers(4)],
                lr_scale=[0.0, 1.0, positive(), positive(), positive()][rng.integers(5)],
                schedule=random_schedule(rng),
                weight_decay=[None, 0.0, 0.1][rng.integers(3)],
                momentum=0.5 if own else None,
                nesterov=bool(rng.integers(2)) if own else None,
            )
        )
        if rng.integers(4) == 0:
            groups.append(ll.Group(f"nothing_{name}", optional=True, lr=positive(), schedule=random_schedule(rng)))
    optimizer = ll.SGD(lr=positive(), weight_decay=[0.0, 0.01][rng.integers(2)])
    return ll.Spec(optimizer=optimizer, groups=groups, schedule=random_schedule(rng))


@pytest.mark.parametrize("seed", range(25))
def test_compile_applies_the_planned_rates(framework: Any, seed: int) -> None:
    plan, rates = through_compile(framework, random_spec(seed))
    np.testing.assert_allclose(rates, planned(plan), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("seed", keep_some(range(25), lambda seed: seed < 10))
def test_attach_applies_the_planned_rates(oneflow: Any, seed: int) -> None:
    plan, rates = through_attach(oneflow, random_spec(seed))
    np.testing.assert_allclose(rates, planned(plan), rtol=TOLERANCE, atol=0)


EDGES = {
    "a rate of zero": ll.Group("p0", lr=0.0, schedule=ll.StepLR(step_size=2)),
    "a scale of zero": ll.Group("p0", lr=0.5, lr_scale=0.0, schedule=ll.StepLR(step_size=2)),
    "gamma 0": ll.Group("p0", lr=0.5, lr_scale=0.1, schedule=ll.StepLR(step_size=2, gamma=0.0)),
    "gamma 0 at once": ll.Group("p0", lr=0.5, lr_scale=0.1, schedule=ll.StepLR(step_size=1, gamma=0.0)),
    "gamma 0 of a rate of zero": ll.Group("p0", lr=0.0, schedule=ll.StepLR(step_size=1, gamma=0.0)),
    "gamma 0 in epochs": ll.Group("p0", lr=0.5, schedule=ll.StepLR(step_size=2, gamma=0.0, unit="epoch")),
    "gamma 1": ll.Group("p0", lr=0.5, lr_scale=3.0, schedule=ll.StepLR(step_size=1, gamma=1.0)),
    "gamma above 1": ll.Group("p0", lr=0.5, lr_scale=0.1, schedule=ll.StepLR(step_size=1, gamma=7.3)),
    "a tiny gamma": ll.Group("p0", lr=0.5, schedule=ll.StepLR(step_size=4, gamma=1e-12)),
    "a huge step_size": ll.Group("p0", lr=0.5, schedule=ll.StepLR(step_size=2**52)),
    "a huge step_size in epochs": ll.Group("p0", lr=0.5, schedule=ll.StepLR(step_size=2**53, unit="epoch")),
    "a tiny rate": ll.Group("p0", lr=1e-30, lr_scale=0.3),
}
# What float32 cannot hold before ``lr_scale`` multiplies: eager mode folds the scale in first, the Graph cannot.
BEYOND = {
    "a tiny rate, scaled up": ll.Group("p0", lr=1e-42, lr_scale=1e10),
    "a huge rate, scaled down": ll.Group("p0", lr=1e40, lr_scale=1e-10),
    "a decay below float32, scaled up": ll.Group(
        "p0", lr=1e-3, lr_scale=1e12, schedule=ll.StepLR(step_size=4, gamma=1e-20)
    ),
}


@pytest.mark.parametrize("group", [*EDGES.values(), *BEYOND.values()], ids=[*EDGES, *BEYOND])
def test_compile_at_the_edges(framework: Any, group: ll.Group) -> None:
    plan, rates = through_compile(framework, ll.Spec(optimizer=ll.SGD(lr=0.1), groups=[group]), ["p0", "p1"])
    np.testing.assert_allclose(rates, planned(plan), rtol=TOLERANCE, atol=0)


def test_attach_at_the_edges(oneflow: Any) -> None:
    """All in one graph, beside a parameter of no group."""
    names = [f"p{place}" for place in range(len(EDGES))]
    groups = [replace(group, match=name) for name, group in zip(names, EDGES.values(), strict=True)]
    plan, rates = through_attach(oneflow, ll.Spec(ll.SGD(lr=0.1), groups), [*names, "free"])
    expected = planned(plan)
    for column, what in enumerate([*EDGES, "no group"]):
        np.testing.assert_allclose(rates[:, column], expected[:, column], rtol=TOLERANCE, atol=0, err_msg=what)


@pytest.mark.parametrize("group", BEYOND.values(), ids=BEYOND)
def test_attach_refuses_what_the_graph_would_round_away(oneflow: Any, group: ll.Group) -> None:
    with pytest.raises(ll.Unsupported, match=r"float32.*'p0'"):
        through_attach(oneflow, ll.Spec(optimizer=ll.SGD(lr=0.1), groups=[group]), ["p0", "p1"])


def torch_rates(torch: Any, plan: ll.Plan) -> NDArray[np.float64]:
    """The same rates as torch has them: an optimizer and a ``StepLR`` of torch's for each group, by hand."""
    model = unit_gradients(torch, NAMES)
    objects, pairs = dict(model.named_parameters()), []
    for group in plan.groups:
        schedule = group.schedule
        step_size, gamma = (schedule.step_size, schedule.gamma) if isinstance(schedule, ll.StepLR) else (10**9, 1.0)
        rule = {name: getattr(group.optimizer, name) for name in ("momentum", "nesterov", "weight_decay")}
        lr = group.lr * group.lr_scale  # StepLR only multiplies, so that it makes no difference when the scale does
        params = [{"params": [objects[name] for name in group.parameters]}]
        optimizer = torch.optim.SGD(params, lr=lr, **rule) if group.parameters else None
        if optimizer:
            pairs.append((schedule, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)))
    steps = []
    for step in range(1, STEPS + 1):
        model.zero_grad(set_to_none=True)
        model(ones(torch)).backward()
        for schedule, optimizer, scheduler in pairs:
            optimizer.step()
            if schedule.unit == "step" or step % STEPS_PER_EPOCH == 0:
                scheduler.step()
        steps.append(taken(model, torch))
    return applied(plan, steps)


@pytest.mark.parametrize("seed", range(5))
def test_torchs_own_groups_and_schedulers_give_the_same_rates(torch: Any, framework: Any, seed: int) -> None:
    plan, rates = through_compile(framework, random_spec(seed))
    np.testing.assert_allclose(rates, torch_rates(torch, plan), rtol=TOLERANCE, atol=0)


def test_many_steps_stay_exact(oneflow: Any) -> None:
    """300 native decays of 0.97: a rate kept by multiplying in float32 would have drifted by 1e-5."""
    schedule = ll.StepLR(step_size=1, gamma=0.97)
    model = unit_gradients(oneflow, ["p0"])

    class Graph(oneflow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.scheduler = ll.attach(ll.Spec(optimizer=ll.SGD(lr=0.3), schedule=schedule), self, model)

        def build(self, x: Any) -> Any:
            loss = self.net(x)
            loss.backward()
            return loss

    graph, rates = Graph(), []
    for _ in range(300):
        graph(ones(oneflow))
        rates.append(taken(model, oneflow)[0])
    np.testing.assert_allclose(rates, graph.scheduler.plan.table(0, 300)[:, 0], rtol=TOLERANCE, atol=0)
