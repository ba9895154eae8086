"""``ll.attach`` in a graph of the user's own: what OneFlow would do silently wrong, or end the process for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.models import ones, taken, unit_gradients

SPEC = ll.Spec(optimizer=ll.SGD(lr=0.25), groups=[ll.Group("p0", lr_scale=0.5)])


def graph_of(flow: Any, model: Any, spec: ll.Spec = SPEC, accumulate: int = 1, **lengths: int) -> Any:
    class Graph(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            if accumulate > 1:
                self.config.set_gradient_accumulation_steps(accumulate)
            self.scheduler = ll.attach(spec, self, model, **lengths)
            self.plan = self.scheduler.plan

        def build(self, x: Any) -> Any:
            loss = self.net(x[0] if accumulate > 1 else x)
            loss.backward()
            return loss

    return Graph()


def test_it_returns_the_plan(oneflow: Any) -> None:
    model = unit_gradients(oneflow, ["p0", "p1"])
    graph = graph_of(oneflow, model, total_steps=3)
    assert graph.plan == ll.resolve(SPEC, model, total_steps=3)
    assert graph.plan.lowering("oneflow-graph") == {
        "p0": "constant, native lr_scale",
        "rest": "constant, native lr_scale",
    }


@pytest.mark.parametrize("when", ["before attach", "before the first call"])
def test_a_stale_eager_gradient_is_dropped(oneflow: Any, when: str) -> None:
    """OneFlow would take it for part of every step, or leave the weights alone for good, without a word."""
    model = unit_gradients(oneflow, ["p0", "p1"])
    if when == "before attach":
        (10 * model(ones(oneflow))).backward()
    graph = graph_of(oneflow, model)
    if when == "before the first call":
        (10 * model(ones(oneflow))).backward()
    for _ in range(2):
        graph(ones(oneflow))
        assert taken(model, oneflow).tolist() == [0.125, 0.25]


def test_one_graph_after_another_and_eager_after_both(oneflow: Any) -> None:
    model = unit_gradients(oneflow, ["p0", "p1"])
    for _ in range(2):
        graph_of(oneflow, model)(ones(oneflow))
        assert taken(model, oneflow).tolist() == [0.125, 0.25]
    optimizer, scheduler = ll.compile(SPEC, model)
    optimizer.zero_grad(set_to_none=True)
    model(ones(oneflow)).backward()
    optimizer.step()
    scheduler.step()
    assert taken(model, oneflow).tolist() == [0.125, 0.25]


def test_gradient_accumulation_counts_updates(oneflow: Any) -> None:
    model = unit_gradients(oneflow, ["p0"])
    spec = ll.Spec(optimizer=ll.SGD(lr=1.0), schedule=ll.StepLR(step_size=1, gamma=0.5))
    graph, steps = graph_of(oneflow, model, spec, accumulate=2), []
    for _ in range(4):
        graph(oneflow.ones(2, 2))
        steps += taken(model, oneflow).tolist()
    assert steps == [1.0, 0.5, 0.25, 0.125]


def test_two_specs_for_two_parts_of_one_graph(oneflow: Any) -> None:
    parts = [unit_gradients(oneflow, ["p0"]) for _ in range(2)]

    class Graph(oneflow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = parts
            for part, lr in zip(parts, (0.5, 0.125), strict=True):
                ll.attach(ll.Spec(optimizer=ll.SGD(lr=lr)), self, part)

        def build(self, x: Any) -> Any:
            loss = self.one(x) + self.two(x)
            loss.backward()
            return loss

    Graph()(ones(oneflow))
    assert [taken(part, oneflow).tolist() for part in parts] == [[0.5], [0.125]]


def duplicates() -> dict[str, str]:
    """Every way to give a parameter to a graph twice, one after another in one process; what each raises."""
    import layered_lr as ll
    from tests.support.models import mlp

    spec = ll.Spec(optimizer=ll.SGD(lr=0.1))
    ll.compile(spec, mlp(__import__("oneflow"))())
    import oneflow as flow

    model = mlp(flow)()

    def own_first(graph: object) -> None:
        graph.add_optimizer(flow.optim.SGD(model.parameters(), lr=0.1))
        ll.attach(spec, graph, model)

    def one_of_them(graph: object) -> None:
        graph.add_optimizer(flow.optim.SGD([model[3].bias], lr=0.1))
        ll.attach(spec, graph, model)

    def attached_twice(graph: object) -> None:
        ll.attach(spec, graph, model)
        ll.attach(spec, graph, model)

    def part_attached_again(graph: object) -> None:
        ll.attach(spec, graph, model)
        ll.attach(spec, graph, model[3])

    said = {}
    for way in (own_first, one_of_them, attached_twice, part_attached_again):

        class Graph(flow.nn.Graph):
            def __init__(self) -> None:
                super().__init__()
                self.net = model
                way(self)  # noqa: B023 - called in this turn of the loop

        try:
            Graph()
            said[way.__name__] = "nothing"
        except ll.SpecError as error:
            said[way.__name__] = str(error)
    return said


def test_a_parameter_in_two_optimizers_is_an_error_and_no_abort(oneflow: Any) -> None:
    said = value_of(duplicates)
    assert len(said) == 4
    for text in said.values():
        assert "is in an optimizer of this graph already" in text


@pytest.mark.parametrize("with_scheduler", [True, False])
def test_an_eager_optimizer_is_refused_by_a_graph(oneflow: Any, with_scheduler: bool) -> None:
    """Alone it would train at the rates of step 0 for ever."""
    model = unit_gradients(oneflow, ["p0", "p1"])
    spec = ll.Spec(optimizer=SPEC.optimizer, groups=SPEC.groups, schedule=ll.StepLR(step_size=1, gamma=0.5))
    optimizer, scheduler = ll.compile(spec, model)

    class Graph(oneflow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.add_optimizer(optimizer, lr_sch=scheduler if with_scheduler else None)

        def build(self, x: Any) -> Any:
            loss = self.net(x)
            loss.backward()
            return loss

    with pytest.raises(ll.Unsupported, match=r"layered_lr\.attach"):
        Graph()(ones(oneflow))
    assert taken(model, oneflow).tolist() == [0, 0]


def test_what_is_no_graph_is_an_error(oneflow: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"must be a oneflow\.nn\.Graph"):
        ll.attach(SPEC, object(), unit_gradients(oneflow, ["p0"]))


def test_a_model_that_is_none_is_an_error(oneflow: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"oneflow\.nn\.Module"):
        ll.attach(SPEC, oneflow.nn.Graph(), object())


def test_a_torch_model_is_an_error(oneflow: Any, torch: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"oneflow\.nn\.Module"):
        ll.attach(SPEC, oneflow.nn.Graph(), unit_gradients(torch, ["p0"]))


def test_a_compiled_graph_is_an_error(oneflow: Any) -> None:
    graph = graph_of(oneflow, unit_gradients(oneflow, ["p0", "p1"]))
    graph(ones(oneflow))
    with pytest.raises(ll.SpecError, match="compiled already"):
        ll.attach(SPEC, graph, unit_gradients(oneflow, ["p0", "p1"]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # OneFlow's __del__ of half a graph
def test_before_super_init_is_an_error(oneflow: Any) -> None:
    class Graph(oneflow.nn.Graph):
        def __init__(self) -> None:
            ll.attach(SPEC, self, unit_gradients(oneflow, ["p0"]))

    with pytest.raises(ll.SpecError, match="super"):
        Graph()


def test_a_table_without_the_length_of_the_run_is_an_error(oneflow: Any) -> None:
    spec = ll.Spec(optimizer=ll.SGD(), schedule=ll.StepLR(step_size=2, gamma=0.0))
    with pytest.raises(ll.SpecError, match="total_steps"):
        graph_of(oneflow, unit_gradients(oneflow, ["p0"]), spec)


def test_a_failed_attach_leaves_the_graph_as_it_was(oneflow: Any) -> None:
    model, graph = unit_gradients(oneflow, ["p0", "p1"]), oneflow.nn.Graph()
    bad = ll.Spec(optimizer=ll.SGD(), groups=[ll.Group("p0"), ll.Group("p1", schedule=ll.StepLR(1, gamma=0.0))])
    with pytest.raises(ll.SpecError):
        ll.attach(bad, graph, model)
    ll.attach(SPEC, graph, model)
    assert len(graph._opts) == 1


def test_another_batch_shape_is_a_recoverable_error(oneflow: Any) -> None:
    model = unit_gradients(oneflow, ["p0", "p1"], elements=1)
    graph = graph_of(oneflow, model)
    graph(oneflow.ones(2))
    assert taken(model, oneflow).tolist() == [0.25, 0.5]
    with pytest.raises(RuntimeError, match=r"(?i)shape"):
        graph(oneflow.ones(3))
    graph(oneflow.ones(2))
    assert np.array_equal(taken(model, oneflow), [0.25, 0.5])


@pytest.mark.parametrize("optimizer", [ll.SGD(0.25), ll.AdamW(0.25)], ids=["native", "dynamic"])
def test_rates_follow_the_graphs_own_counter(oneflow: Any, optimizer: Any) -> None:
    """Also where nobody calls ``scheduler.step()``, which a graph does not need."""
    model = unit_gradients(oneflow, ["p0", "p1"])
    spec = ll.Spec(optimizer, [ll.Group("p0", lr_scale=0.5)], ll.StepLR(2, gamma=0.5))
    graph = graph_of(oneflow, model, spec, total_steps=8)
    plan = graph.plan
    for made in range(7):
        assert graph.scheduler.get_last_lr() == pytest.approx(plan.rates(made), rel=1e-6)
        assert graph.scheduler.state_dict()["last_step"] == made
        graph(ones(oneflow))


@pytest.mark.parametrize("optimizer", [ll.SGD(0.1), ll.AdamW(0.1)], ids=["native", "dynamic"])
def test_a_graph_counts_the_batches_of_its_normalisations(oneflow: Any, tmp_path: Any, optimizer: Any) -> None:
    """As eager mode does: OneFlow moves their statistics in a graph, and not their count."""
    nn = oneflow.nn
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model[2].eval()

    class Graph(nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.scheduler = ll.attach(ll.Spec(optimizer), self, model, total_steps=9)

        def build(self, x: Any) -> Any:
            loss = self.net(x).pow(2).sum()
            loss.backward()
            return loss

    def counts() -> list[int]:
        return [int(model.state_dict()[f"{place}.num_batches_tracked"].numpy()) for place in (1, 2)]

    graph = Graph()
    for _ in range(3):
        graph(oneflow.tensor([[1.0, 2.0], [3.0, 5.0], [2.0, -1.0]]))
    assert counts() == [3, 0]
    ll.save_state(tmp_path / "state", model, graph, graph.scheduler)
    graph(oneflow.ones(3, 2))
    ll.load_state(tmp_path / "state", model, graph, graph.scheduler)
    assert counts() == [3, 0]
    model.train()
    model(oneflow.ones(3, 2))
    assert counts() == [4, 1]


@pytest.mark.parametrize(
    "spec",
    [
        ll.Spec(ll.SGD(0.1), clip_grad_norm=1.0),
        ll.Spec(ll.SGD(0.1), clip_grad_value=1.0),
        ll.Spec(ll.AdamW(0.1)),
        ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau()),
    ],
    ids=["clip norm", "clip value", "composed", "plateau"],
)
def test_a_grad_scaler_is_refused_where_we_read_gradients(oneflow: Any, spec: ll.Spec) -> None:
    """OneFlow multiplies the gradients inside the graph: they would be clipped, or applied, as they are there."""
    graph = graph_of(oneflow, unit_gradients(oneflow, ["p0", "p1"]), spec, total_steps=3)
    graph.set_grad_scaler(oneflow.amp.StaticGradScaler(1024.0))
    with pytest.raises(ll.Unsupported, match="set_grad_scaler does not go with"):
        graph(ones(oneflow))
