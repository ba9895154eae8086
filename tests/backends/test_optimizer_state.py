"""What optimizers on OneFlow carry from one update to the next: their state, their counts, what a user sets on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from tests.support import optimizer_cases as cases
from tests.support.isolation import value_of
from tests.support.models import arrays, largest_difference, mlp, mlp_weights
from tests.support.optimizer_states import saved
from tests.support.widths import keep_some

STEPS = 12


def made(framework: Any, case: ll.Optimizer, dtype: str = "float64") -> tuple[Any, Any, Any]:
    model = cases.linear(framework, dtype, cases.start(case=case))
    return model, *ll.compile(cases.spec_of(case, STEPS), model, total_steps=STEPS)


def update(framework: Any, model: Any, optimizer: Any, scheduler: Any, gradient: Any, dtype: str = "float64") -> None:
    optimizer.zero_grad(set_to_none=True)
    model(*cases.tensors(framework, dtype, gradient)).backward()
    optimizer.step()
    if scheduler is not None:
        scheduler.step()


@pytest.mark.parametrize("name", cases.CASES)
def test_a_saved_state_goes_on_bitwise(oneflow: Any, name: str) -> None:
    model, *pair = made(oneflow, cases.CASES[name], "float32")
    for step, gradient in enumerate(cases.gradients(STEPS, cases.CASES[name])):
        if step == 5:
            weights, states = cases.weights_of(model), [saved(oneflow, thing.state_dict()) for thing in pair]
            again = cases.linear(oneflow, "float32", weights)
            resumed = ll.compile(cases.spec_of(cases.CASES[name], STEPS), again, total_steps=STEPS)
            for thing, state in zip(resumed, states, strict=True):
                thing.load_state_dict(state)
        update(oneflow, model, *pair, gradient, "float32")
    for gradient in cases.gradients(STEPS, cases.CASES[name])[5:]:
        update(oneflow, again, *resumed, gradient, "float32")
    assert cases.apart(cases.weights_of(again), cases.weights_of(model)) == 0


def test_a_state_that_does_not_fit_changes_nothing(oneflow: Any) -> None:
    model, optimizer, scheduler = made(oneflow, ll.AdamW(0.1))
    update(oneflow, model, optimizer, scheduler, cases.gradients(1)[0])
    other, few, _ = made(oneflow, ll.AdamW(0.1), "float32")
    update(oneflow, other, few, None, cases.gradients(1)[0], "float32")
    with pytest.raises(ll.CheckpointError, match=r"'exp_avg' is oneflow.float32 .*; must be oneflow.float64"):
        optimizer.load_state_dict(few.state_dict())
    lone, _ = ll.compile(ll.Spec(ll.AdamW(0.1)), other)
    with pytest.raises(ll.CheckpointError, match="param groups"):
        lone.load_state_dict(few.state_dict())
    assert all(optimizer.state_dict()["state"][place]["step"] == 1 for place in range(len(cases.SHAPES)))


LATE = [ll.Adam(0.01), ll.NAdam(0.01), ll.RAdam(0.01), ll.Adamax(0.01), ll.Adagrad(0.1, lr_decay=0.3)]


@pytest.mark.parametrize("case", [*LATE, ll.SGD(0.1, momentum=0.9, dampening=0.5)], ids=lambda o: type(o).__name__)
def test_a_parameter_unfrozen_late_begins_its_own_count(oneflow: Any, torch: Any, case: ll.Optimizer) -> None:
    options = {name: getattr(case, name, None) for name in ("lr", "momentum", "dampening", "lr_decay")}
    given, ends = {name: value for name, value in options.items() if value is not None}, []
    for framework in (oneflow, torch):
        model = cases.linear(framework, "float64", cases.start())
        if framework is oneflow:
            optimizer, _ = ll.compile(ll.Spec(case), model)
        else:
            optimizer = getattr(torch.optim, type(case).__name__)(model.parameters(), **given)
        for step, gradient in enumerate(cases.gradients(20)):
            model.b.requires_grad = step >= 10
            update(framework, model, optimizer, None, gradient)
            if step == 9:
                assert np.array_equal(cases.weights_of(model)["b"], cases.start()["b"])
        ends.append(cases.weights_of(model))
    assert cases.apart(*ends) < 1e-14  # float64


def test_what_is_set_on_a_param_group_holds_from_the_next_update_on(oneflow: Any, torch: Any) -> None:
    ends = []
    for framework in (oneflow, torch):
        model = cases.linear(framework, "float64", cases.start())
        if framework is oneflow:
            optimizer, _ = ll.compile(ll.Spec(ll.AdamW(0.01)), model)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step, gradient in enumerate(cases.gradients(9)):
            group = optimizer.param_groups[0]
            if step == 3:
                group["betas"], group["weight_decay"] = (0.5, 0.7), 0.3
            if step == 6:
                group["lr"], group["eps"], group["maximize"] = 0.1, 1e-2, True
            update(framework, model, optimizer, None, gradient)
        ends.append(cases.weights_of(model))
    assert cases.apart(*ends) < 1e-14
    optimizer, _ = ll.compile(ll.Spec(ll.AdamW(0.01)), cases.linear(oneflow, "float64", cases.start()))
    optimizer.param_groups[0]["betas"] = (1.5, 0.9)
    with pytest.raises(ll.SpecError, match="betas"):
        optimizer.step()


def test_an_eager_optimizer_in_a_graph_is_refused(oneflow: Any) -> None:
    model = cases.linear(oneflow, "float32", cases.start())
    optimizer, _ = ll.compile(ll.Spec(ll.AdamW(0.1)), model)
    graph = cases.train_graph(oneflow, model, lambda graph: graph.add_optimizer(optimizer))
    with pytest.raises(ll.Unsupported, match="attach"):
        graph(*cases.tensors(oneflow, "float32", cases.gradients(1)[0]))


def moved_to_a_graph() -> dict[str, list[float]]:
    """The state of an eager run, in which one parameter began late, goes on in a graph; each case's difference."""
    import numpy as np

    import layered_lr as ll
    from layered_lr_oneflow.dynamic_updates import DynamicUpdate
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases

    answers = {}
    chosen = (ll.AdamW(0.01), ll.NAdam(0.01), ll.RAdam(0.01), ll.Adagrad(0.1, lr_decay=0.3))
    for case, dtypes in zip(chosen, (["float32", "float64"], ["float64"], ["float32"], ["float32"]), strict=True):
        for dtype in dtypes:
            model = cases.linear(flow, dtype, cases.start())
            plan = ll.resolve(ll.Spec(case), model)
            optimizer, _ = ll.compile(ll.Spec(case), model)
            for step, gradient in enumerate(cases.gradients(20)):
                if step == 10:
                    other = cases.linear(flow, dtype, cases.weights_of(model))
                    updates = DynamicUpdate(plan, other)
                    state = optimizer.state_dict()["state"]
                    slots = {
                        name: {
                            slot: (value.numpy().copy() if isinstance(value, flow.Tensor) else np.float64(value))
                            for slot, value in state[place].items()
                        }
                        for place, name in enumerate(cases.SHAPES)
                    }
                    updates.load_slots(slots)
                    graph = cases.train_graph(flow, other, updates.bind)
                if step >= 10:
                    graph(*cases.tensors(flow, dtype, gradient))
                model.b.requires_grad = step >= 5
                optimizer.zero_grad(set_to_none=True)
                model(*cases.tensors(flow, dtype, gradient)).backward()
                optimizer.step()
            held = updates.slots()
            counts = [float(held["b"]["step"]), float(held["a"]["step"])]
            flow._oneflow_internal.eager.Sync()
            answers[f"{type(case).__name__} {dtype}"] = [
                cases.apart(cases.weights_of(other), cases.weights_of(model)),
                *counts,
            ]
    return answers


def test_a_graph_goes_on_from_counts_that_differ(oneflow: Any) -> None:
    """Bitwise as eager mode: each parameter has a count of its own in the graph too."""
    answers = value_of(moved_to_a_graph)
    assert len(answers) == 5
    assert answers == {key: [0.0, 15.0, 20.0] for key in answers}


def cycled(dtype: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Weights after a cycle of rate and momentum, eager and in a graph."""
    import layered_lr as ll
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases

    answers = {}
    schedule = ll.OneCycleLR(max_lr=0.05, total_steps=21)
    for case in (ll.AdamW(0.01), ll.NAdam(0.01), ll.LAMB(0.01), ll.SGD(0.01, momentum=0.9, dampening=0.2)):
        spec = ll.Spec(case, schedule=schedule)
        model = cases.linear(flow, dtype, cases.start())
        optimizer, scheduler = ll.compile(spec, model, total_steps=20)
        other = cases.linear(flow, dtype, cases.start())
        graph = cases.train_graph(flow, other, lambda g, s=spec, m=other: ll.attach(s, g, m, total_steps=20))
        for gradient in cases.gradients(20):
            optimizer.zero_grad(set_to_none=True)
            model(*cases.tensors(flow, dtype, gradient)).backward()
            optimizer.step()
            scheduler.step()
            graph(*cases.tensors(flow, dtype, gradient))
        flow._oneflow_internal.eager.Sync()
        answers[type(case).__name__] = {
            mode: {key: w.tolist() for key, w in cases.weights_of(net).items()}
            for mode, net in (("eager", model), ("graph", other))
        }
    return answers


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-13), pytest.param("float32", 1e-5, marks=pytest.mark.exhaustive)]
)
def test_momentum_cycles_as_in_torch(oneflow: Any, torch: Any, dtype: str, tolerance: float) -> None:
    """torch's own OneCycleLR moves the first of the betas, and with it the bias correction. float32: its rounding."""
    answers = value_of(cycled, dtype)
    for name, modes in answers.items():
        eager, graph = ({key: np.array(w) for key, w in modes[mode].items()} for mode in ("eager", "graph"))
        assert cases.apart(graph, eager) <= tolerance
        if not hasattr(torch.optim, name):
            continue
        model = cases.linear(torch, "float64", cases.start())
        more = {"momentum": 0.9, "dampening": 0.2} if name == "SGD" else {}
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **more)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=21)
        for gradient in cases.gradients(20):
            update(torch, model, optimizer, scheduler, gradient)
        assert cases.apart(eager, cases.weights_of(model)) < tolerance, name
        assert cases.apart(graph, cases.weights_of(model)) < tolerance, name


@pytest.mark.parametrize("case", [ll.SGD(0.05, momentum=0.9, weight_decay=0.1), ll.Adagrad(0.05, weight_decay=0.1)])
def test_a_group_in_which_not_all_decays_is_native_and_has_one_rate(oneflow: Any, case: ll.Optimizer) -> None:
    spec = ll.Spec(case, [ll.Group("1", lr_scale=0.3)], ll.StepLR(3, gamma=0.5), no_weight_decay="1d")
    options: dict[str, Any] = {"max_steps": 12, "batch_size": 16, "initial_weights": mlp_weights(), "progress": False}
    eager, graph = (
        ll.run(spec, name, mlp(oneflow), arrays(160), device="cpu", **options)
        for name in ("oneflow-eager", "oneflow-graph")
    )
    assert all("native" in text for text in graph.lowering.values())
    assert largest_difference(eager.weights, graph.weights) == 0
    for name, rates in graph.rates.items():
        np.testing.assert_allclose(rates, eager.rates[name], rtol=0)
        assert len(set(rates)) == 4


def at_the_edges(names: list[str]) -> list[str]:
    """Gradients of NaN and infinity, and parameters that are empty, a number, or have no gradient; what went wrong."""
    import numpy as np

    import layered_lr as ll
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases

    shapes = {"a": (3,), "number": (), "empty": (0,), "also_empty": (2, 0), "unused": (2,)}

    class Edges(flow.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, shape in shapes.items():
                self.register_parameter(name, flow.nn.Parameter(flow.tensor(np.ones(shape), dtype=flow.float32)))

        def forward(self, gradient: object) -> object:
            return (self.a * gradient).sum() + self.number * 0.5 + self.empty.sum() + self.also_empty.sum()

    bad = [[1.0, 0.0, -2.0], [np.nan, 0.0, 1.0], [np.inf, 0.0, 1.0], [1.0, 0.0, -np.inf]]
    wrong = []
    for name in names:
        case, ends = cases.CASES[name], []
        for mode in ("eager", "graph"):
            model = Edges()
            if mode == "graph":
                train = cases.train_graph(flow, model, lambda g, m=model, c=case: ll.attach(ll.Spec(c), g, m))
            else:
                optimizer, _ = ll.compile(ll.Spec(case), model)
            for gradient in bad:
                given = flow.tensor(gradient)
                if mode == "graph":
                    train(given)
                    continue
                optimizer.zero_grad(set_to_none=True)
                model(given).backward()
                optimizer.step()
            flow._oneflow_internal.eager.Sync()
            ends.append(cases.weights_of(model))
        same = all(np.array_equal(ends[0][key], ends[1][key], equal_nan=True) for key in shapes)
        finite = np.isfinite(ends[0]["number"]) and ends[0]["number"] != 1
        still = ends[0]["unused"].tolist() == [1.0, 1.0]
        if not (same and finite and still):
            wrong.append(f"{name}: {ends}")
    return wrong


FIRST = [name for name in cases.CASES if name in OPTIMIZERS]
VECTORS = [name for name, case in cases.CASES.items() if not isinstance(case, ll.Muon)]  # which takes matrices only


@pytest.mark.parametrize("is_odd", keep_some([False, True], lambda is_odd: not is_odd))
def test_nothing_aborts_the_process(oneflow: Any, is_odd: bool) -> None:
    """Each optimizer as it comes; and those with hyperparameters far from the defaults."""
    assert value_of(at_the_edges, [name for name in VECTORS if (name in FIRST) != is_odd]) == []


def test_a_plan_says_who_makes_the_update() -> None:
    def said(case: ll.Optimizer, dtype: str = "float32", backend: str = "oneflow-graph") -> Any:
        from layered_lr.plans.lowering import lowering_of

        plan = ll.resolve(ll.Spec(case), [("w", (2, 3), (), dtype)])
        return lowering_of(plan, backend)[0]

    native = said(ll.SGD(0.1, momentum=0.9))
    assert (native.schedule, native.lr_scale, native.update) == ("constant", "native", "oneflow.optim.SGD, compiled in")
    assert said(ll.Adagrad(0.1)).update == "oneflow.optim.Adagrad, compiled in"
    composed = "composed of ops, as torch computes "
    assert said(ll.SGD(0.1, momentum=0.9), "float64")[::3] == ("dynamic", composed + "SGD")
    for name, case in cases.CASES.items():
        own = name in ("SGD", "SGD momentum", "SGD nesterov", "Adagrad")
        kind = type(case).__name__
        assert said(case).update == (f"oneflow.optim.{kind}, compiled in" if own else composed + kind)
        assert said(case, backend="oneflow-eager").update == (f"oneflow.optim.{kind}" if own else composed + kind)
