"""Every schedule on every backend: the rates that act, seen in the weights of a model whose gradients are all 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.schedules import SCHEDULES
from tests.support.applied_rates import LENGTHS, STEPS, TOLERANCE, planned, through_attach, through_compile
from tests.support.models import arrays, mlp, ones, taken, unit_gradients
from tests.support.schedule_cases import EXAMPLES

REACTIVE = {"ReduceLROnPlateau"}


def test_no_schedule_is_left_out() -> None:
    assert set(EXAMPLES) | REACTIVE == set(SCHEDULES)


def spec_of(schedule: ll.Schedule) -> ll.Spec:
    """Two groups of one schedule, whose scales differ, beside a constant one: a floor keeps the ratio."""
    groups = [
        ll.Group("p0", lr=0.5, lr_scale=0.1),
        ll.Group("p1", lr_scale=3.0),
        ll.Group("p2", schedule=ll.Constant()),
    ]
    return ll.Spec(ll.SGD(lr=0.05), groups, schedule)


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_compile_applies_it(framework: Any, name: str, unit: Any) -> None:
    schedule = EXAMPLES[name] if unit == "step" else in_epochs(EXAMPLES[name])
    plan, rates = through_compile(framework, spec_of(schedule), ["p0", "p1", "p2"])
    np.testing.assert_allclose(rates, planned(plan), rtol=TOLERANCE, atol=1e-12)


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_attach_applies_every_one(oneflow: Any, unit: str) -> None:
    """One graph has all of them: two groups of each, whose scales differ, beside a constant one."""
    groups = []
    for name, schedule in EXAMPLES.items():
        given = schedule if unit == "step" else in_epochs(schedule)
        groups += [
            ll.Group(f"{name}_low", lr=0.5, lr_scale=0.1, schedule=given),
            ll.Group(f"{name}_high", lr_scale=3.0, schedule=given),
        ]
    groups.append(ll.Group("still", schedule=ll.Constant()))
    names = [str(group.match) for group in groups]
    plan, rates = through_attach(oneflow, ll.Spec(ll.SGD(lr=0.05), groups), names)
    expected = planned(plan)
    for column, name in enumerate(names):
        np.testing.assert_allclose(rates[:, column], expected[:, column], rtol=TOLERANCE, atol=1e-12, err_msg=name)
    kinds = plan.lowering("oneflow-graph")
    assert {name: kind for name, kind in kinds.items() if "native" not in kind} == {}


def in_epochs(schedule: ll.Schedule) -> ll.Schedule:
    """The same schedule counting epochs, with what is inside of it."""
    changes: dict[str, Any] = {"unit": "epoch"}
    if isinstance(schedule, ll.SequentialLR | ll.ChainedScheduler):
        changes["schedulers"] = [replace(child, unit="epoch") for child in schedule.schedulers]
    if isinstance(schedule, ll.Warmup):
        changes["then"] = replace(schedule.then, unit="epoch")
    if isinstance(schedule, ll.WSD):
        changes |= {"warmup_steps": 1, "decay_steps": 1}
    return replace(schedule, **changes)


CYCLES = {
    "OneCycleLR": ll.OneCycleLR(max_lr=0.2, total_steps=STEPS + 1),
    "CyclicLR": ll.CyclicLR(1e-3, 0.1, step_size_up=3),
}


@pytest.mark.parametrize("name", CYCLES)
def test_momentum_cycles_as_in_torch(framework: Any, torch: Any, name: str) -> None:
    """torch's own scheduler on torch's own optimizer is the oracle: the weights after each step."""
    names = ["p0", "p1"]
    ours, theirs = unit_gradients(framework, names), unit_gradients(torch, names)
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(lr=0.05, momentum=0.9), schedule=CYCLES[name]), ours, **LENGTHS)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    if name == "OneCycleLR":
        oracle = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=0.2, total_steps=STEPS + 1)
    else:
        oracle = torch.optim.lr_scheduler.CyclicLR(reference, 1e-3, 0.1, step_size_up=3)
    for _ in range(STEPS):
        for model, opt, sch, library in (
            (ours, optimizer, scheduler, framework),
            (theirs, reference, oracle, torch),
        ):
            opt.zero_grad(set_to_none=True)
            model(ones(library)).backward()
            opt.step()
            sch.step()
        # OneFlow holds rate and momentum in float32.
        np.testing.assert_allclose(taken(ours, framework), taken(theirs, torch), rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("name", CYCLES)
def test_momentum_cycles_in_a_graph_as_in_torch(oneflow: Any, torch: Any, name: str, nesterov: bool) -> None:
    spec = ll.Spec(ll.SGD(lr=0.05, momentum=0.9, nesterov=nesterov), schedule=CYCLES[name])
    ours, theirs = unit_gradients(oneflow, ["p0", "p1"]), unit_gradients(torch, ["p0", "p1"])
    optimizer, scheduler = ll.compile(spec, theirs, **LENGTHS)
    graph = attached(oneflow, spec, ours, **LENGTHS)
    assert set(graph.scheduler.plan.lowering("oneflow-graph").values()) == {
        f"dynamic table of {STEPS} rates and momenta, lr_scale multiplied in"
    }
    for _ in range(STEPS):
        graph(ones(oneflow))
        optimizer.zero_grad(set_to_none=True)
        theirs(ones(torch)).backward()
        optimizer.step()
        scheduler.step()
        np.testing.assert_allclose(taken(ours, oneflow), taken(theirs, torch), rtol=1e-6)


def attached(flow: Any, spec: ll.Spec, model: Any, **lengths: int) -> Any:
    """A graph of the user's own."""

    class Graph(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.scheduler = ll.attach(spec, self, model, **lengths)

        def build(self, x: Any) -> Any:
            loss = self.net(x)
            loss.backward()
            return loss

    return Graph()


def test_a_plateau_in_a_graph_of_ones_own_decides_as_torch(oneflow: Any, torch: Any) -> None:
    """Between two calls, without compiling anything anew; a group beside it follows its own table."""
    metrics = [1.0, 0.9, 0.95, 0.96, 0.5, 0.6, 0.6, 0.6, 0.6]
    plateau = ll.ReduceLROnPlateau(patience=1, factor=0.1, cooldown=1)
    groups = [ll.Group("p0", lr_scale=0.5, schedule=plateau), ll.Group("p1", schedule=ll.ExponentialLR(0.9))]
    model = unit_gradients(oneflow, ["p0", "p1", "p2"])
    graph = attached(oneflow, ll.Spec(ll.SGD(lr=0.25), groups), model, total_steps=len(metrics))
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, patience=1, factor=0.1, cooldown=1)
    for step, metric in enumerate(metrics):
        (rate,) = oracle.get_last_lr()
        graph(ones(oneflow))
        np.testing.assert_allclose(taken(model, oneflow), [0.5 * rate, 0.25 * 0.9**step, 0.25], rtol=TOLERANCE)
        graph.scheduler.step(metrics=metric)
        oracle.step(metric)
    assert oracle.get_last_lr()[0] < 0.01, "it has reduced the rate more than once"


def test_native_and_dynamic_lowerings_agree_bitwise(oneflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All schedules by OneFlow's own optimizers in one graph, and by update ops that read tables in another."""
    momentum = ll.SGD(lr=0.05, momentum=0.9, weight_decay=0.01)
    groups = [ll.Group(name, lr_scale=0.1, schedule=schedule) for name, schedule in EXAMPLES.items()]
    _, native = through_attach(oneflow, ll.Spec(momentum, groups), list(EXAMPLES))
    monkeypatch.setattr("layered_lr_oneflow.attach.is_dynamic", lambda plan: True)
    _, dynamic = through_attach(oneflow, ll.Spec(momentum, groups), list(EXAMPLES))
    unlike = (native != dynamic).any(axis=0)
    assert [name for name, differs in zip(EXAMPLES, unlike, strict=True) if differs] == []


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-eager", "oneflow-graph"])
def test_a_plateau_lowers_the_rate_and_the_result_shows_it(name: str, request: pytest.FixtureRequest) -> None:
    library = request.getfixturevalue(name.split("-")[0])
    spec = ll.Spec(
        ll.SGD(lr=0.1),
        [
            ll.Group("1", lr_scale=0.1, schedule=ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.99)),
            ll.Group("3", schedule=ll.ReduceLROnPlateau(mode="max", metric="accuracy", patience=100)),
        ],
    )
    result = ll.run(spec, name, mlp(library), arrays(), epochs=4, batch_size=8, progress=False, device="cpu")
    per_epoch = len(result.losses) // 4
    # No epoch halves the loss by 99 %, so each after the first lowers the rate.
    expected = np.repeat([0.01, 0.01, 0.005, 0.0025], per_epoch)
    np.testing.assert_allclose(result.rates["1"], expected, rtol=TOLERANCE)
    np.testing.assert_allclose(result.rates["3"], 0.1, rtol=TOLERANCE)


def test_a_plateau_in_a_loop_of_ones_own_decides_as_torch(framework: Any, torch: Any) -> None:
    metrics = [1.0, 0.9, 0.95, 0.96, 0.5, 0.6, 0.6, 0.6, 0.6]
    plateau = ll.ReduceLROnPlateau(patience=1, factor=0.1, cooldown=1)
    _, scheduler = ll.compile(ll.Spec(ll.SGD(lr=0.05), schedule=plateau), unit_gradients(framework, ["p0"]))
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.05)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, patience=1, factor=0.1, cooldown=1)
    for metric in metrics:
        scheduler.step(metrics=metric)
        oracle.step(metric)
        assert scheduler.get_last_lr() == pytest.approx(oracle.get_last_lr(), rel=1e-7)
    saved = scheduler.state_dict()
    _, other = ll.compile(ll.Spec(ll.SGD(lr=0.05), schedule=plateau), unit_gradients(framework, ["p0"]))
    other.load_state_dict(saved)
    assert other.get_last_lr() == scheduler.get_last_lr() != [0.05]
