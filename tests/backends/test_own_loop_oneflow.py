"""The state of loops of one's own on OneFlow, eager and with a graph: saved and loaded by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from tests.support.isolation import value_of, values_of
from tests.support.timelines import HEAD, batch, net, same_arrays, start
from tests.support.widths import keep_some

CASES = (
    "SGD", "SGD momentum", "SGD dampening", "SGD reactive", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adagrad decay",
)  # fmt: skip
GRAPH_CASES = (  # in one process each
    ("SGD momentum", "SGD reactive", "AdamW", "Adagrad decay"),  # native, reactive, ours with slots, ours with a count
    ("SGD", "SGD dampening", "NAdam", "RMSprop", "Adagrad"),
)
# In float32 where OneFlow's own optimizers are at work; elsewhere rounding makes whole steps of a gradient of zero.
ACROSS = {"SGD momentum": "float32", "Adagrad": "float32", "AdamW": "float64", "NAdam": "float64", "RMSprop": "float64"}
GRAPH_ACROSS = {case: ACROSS[case] for case in ("SGD momentum", "NAdam")}  # OneFlow's own, and ours with a count
NEAR = {"float32": 2e-5, "float64": 1e-6}  # OneFlow's normalisation has its momentum in float32
NAMES = [*HEAD, "body.weight", "body.bias", "norm.weight", "norm.bias"]


@pytest.mark.parametrize("case", CASES)
def test_a_saved_loop_goes_on_bitwise(oneflow: Any, case: str, tmp_path: Path) -> None:
    from tests.support.oneflow_loops import Loop, resumed

    assert resumed(Loop, case, str(tmp_path)) == []


def graphs(dtype: str, case: str, folder: str) -> list[str]:
    """What differs where a graph's loop is resumed; only reactive schedules need ``scheduler.step()``.

    Each graph takes time to compile: from the state before any update one case goes on.
    """
    from tests.support.oneflow_loops import GraphLoop, resumed

    return resumed(GraphLoop, case, folder, dtype, counts="reactive" in case, from_start=case == "AdamW")


@pytest.mark.slow
@pytest.mark.parametrize("chosen", keep_some(GRAPH_CASES, lambda chosen: "AdamW" in chosen))
def test_a_saved_graph_goes_on_bitwise(oneflow: Any, chosen: tuple[str, ...], tmp_path: Path) -> None:
    for case in chosen:
        (tmp_path / case).mkdir()
    assert values_of(graphs, [("float32", case, str(tmp_path / case)) for case in chosen]) == [[] for _ in chosen]


def frozen(folder: str) -> list[str]:
    """What is wrong where a loop that froze the head goes on from one that did not, or from its own state."""
    from pathlib import Path

    import layered_lr as ll
    from layered_lr.state.state_files import read_state
    from tests.support.oneflow_loops import SPECS, GraphLoop, Loop, resumed

    class Frozen(Loop):
        def _compile(self) -> tuple[object, object]:
            for parameter in self.model.head.parameters():
                parameter.requires_grad_(False)
            return super()._compile()

    class FrozenGraph(Frozen, GraphLoop):
        pass

    wrong = []
    for case in ("SGD momentum", "AdamW"):
        wrong += resumed(Frozen, case, folder)
        free = Loop(SPECS[case])
        free.train(range(3))
        ll.save_state(f"{folder}/free", *free.parts)
        losses, kept = [], []
        for kind in (Frozen, FrozenGraph):
            for updates in (0, 2):
                loop = kind(SPECS[case], 7)
                loop.train(range(updates))
                ll.load_state(f"{folder}/free", *loop.parts)
                losses.append(loop.train(range(3, 7)))
                ll.save_state(f"{folder}/frozen", *loop.parts)
                kept.append(sorted(read_state(Path(f"{folder}/frozen")).slots))
        body = ["body.bias", "body.weight", "norm.bias", "norm.weight"]
        if losses != 4 * [losses[0]] or any(names != sorted({*names, *body}) for names in kept):
            wrong.append(f"{case}: {losses}, {kept}")
    return wrong + resumed(FrozenGraph, "AdamW", folder)


@pytest.mark.slow
def test_a_frozen_part_goes_on_frozen(oneflow: Any, tmp_path: Path) -> None:
    assert value_of(frozen, str(tmp_path)) == []


def two_parts(folder: str) -> list[bool]:
    """Whether a graph of two models, each under a spec of its own, goes on bitwise with accumulated gradients."""
    import layered_lr as ll
    from tests.support.models import CLASSES, FEATURES
    from tests.support.oneflow_loops import batch, flow

    specs = (ll.Spec(ll.SGD(0.1, momentum=0.9), schedule=ll.StepLR(1, 0.7)), ll.Spec(ll.Adagrad(0.1)))

    class Two(flow.nn.Graph):
        def __init__(self, seed: int) -> None:
            super().__init__()
            flow.manual_seed(seed)
            self.models = [flow.nn.Linear(FEATURES, CLASSES) for _ in specs]
            self.one, self.two = self.models
            self.config.set_gradient_accumulation_steps(2)
            pairs = zip(specs, self.models, strict=True)
            self.schedulers = [ll.attach(spec, self, model) for spec, model in pairs]

        def build(self, images: object, labels: object) -> object:
            flat = images.flatten(1)
            loss = flow.nn.functional.cross_entropy(self.one(flat) + self.two(flat), labels)
            loss.backward()
            return loss

        def train(self, steps: range) -> list[float]:
            return [self(*map(flow.tensor, batch(step))).numpy().tolist() for step in steps]

        def parts(self) -> list[tuple[str, object, object, object]]:
            pairs = enumerate(zip(self.models, self.schedulers, strict=True))
            return [(f"{folder}/{place}", model, self, scheduler) for place, (model, scheduler) in pairs]

    one, other, used = Two(0), Two(1), Two(2)
    one.train(range(4))
    for part in one.parts():
        ll.save_state(*part)
    losses = one.train(range(4, 8))
    used.train(range(1))
    answers = []
    for graph in (other, used):
        for part in graph.parts():
            ll.load_state(*part)
        answers += [graph.train(range(4, 8)) == losses, graph.schedulers[0].state_dict() == {"last_step": 8}]
    return answers


@pytest.mark.slow
def test_a_graph_of_two_models_goes_on(oneflow: Any, tmp_path: Path) -> None:
    assert value_of(two_parts, str(tmp_path)) == 4 * [True]


class TorchLoop:
    """The same loop on torch."""

    def __init__(self, torch: Any, spec: ll.Spec, dtype: str, seed: int = 0) -> None:
        self.torch, self.model = torch, net(torch).to(getattr(torch, dtype))
        self.dtype = getattr(torch, dtype)
        with torch.no_grad():
            for name, array in start(self.model, seed).items():
                self.model.get_parameter(name).copy_(torch.from_numpy(array))
        self.optimizer, self.scheduler = ll.compile(spec, self.model, 9, 4)

    def train(self, steps: range) -> list[float]:
        losses = []
        for step in steps:
            images, labels = (self.torch.from_numpy(array) for array in batch(step))
            self.optimizer.zero_grad()
            loss = self.torch.nn.functional.cross_entropy(self.model(images.to(self.dtype)), labels)
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            losses.append(loss.item())
        return losses

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.detach().clone().numpy() for name, tensor in self.model.state_dict().items()}


def near(one: Any, other: Any, dtype: str) -> None:
    """Losses and weights, but not the counts of batches: a graph does not keep them."""
    np.testing.assert_allclose(one[0], other[0], atol=NEAR[dtype], rtol=0)
    assert one[1].keys() == other[1].keys()
    for name, array in one[1].items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(array, other[1][name], atol=NEAR[dtype], rtol=0, err_msg=name)


@pytest.mark.parametrize("case", ACROSS)
def test_torch_and_eager_go_on_from_each_other(torch: Any, oneflow: Any, case: str, tmp_path: Path) -> None:
    from tests.support.oneflow_loops import SPECS, Loop

    spec, dtype = SPECS[case], ACROSS[case]
    one, other = TorchLoop(torch, spec, dtype), Loop(spec, 5, dtype)
    one.train(range(4))
    ll.save_state(tmp_path / "torch", one.model, one.optimizer, one.scheduler)
    ll.load_state(tmp_path / "torch", *other.parts)
    losses = other.train(range(4, 9))
    near((one.train(range(4, 9)), one.weights()), (losses, other.weights()), dtype)
    back, again = TorchLoop(torch, spec, dtype, 6), Loop(spec, 0, dtype)
    again.train(range(4))
    ll.save_state(tmp_path / "oneflow", *again.parts)
    ll.load_state(tmp_path / "oneflow", back.model, back.optimizer, back.scheduler)
    assert back.scheduler.last_epoch == 4
    near((back.train(range(4, 9)), back.weights()), (again.train(range(4, 9)), again.weights()), dtype)


def from_torch(folder: str, cases: dict[str, str]) -> dict[str, object]:
    """What graphs make of states of torch; theirs is left in the folder."""
    import layered_lr as ll
    from tests.support.oneflow_loops import SPECS, GraphLoop

    answers = {}
    for case, dtype in cases.items():
        loop = GraphLoop(SPECS[case], 5, dtype, counts=False)
        ll.load_state(f"{folder}/{case} torch", *loop.parts)
        losses = loop.train(range(4, 7))
        ll.save_state(f"{folder}/{case} graph", *loop.parts)
        losses += loop.train(range(7, 9))
        answers[case] = [losses, {name: array.tolist() for name, array in loop.weights().items()}]
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("chosen", keep_some([GRAPH_ACROSS, ACROSS], lambda chosen: chosen is GRAPH_ACROSS))
def test_torch_and_a_graph_go_on_from_each_other(
    torch: Any, oneflow: Any, tmp_path: Path, chosen: dict[str, str]
) -> None:
    from tests.support.oneflow_loops import SPECS

    wanted = {}
    for case, dtype in chosen.items():
        loop = TorchLoop(torch, SPECS[case], dtype)
        loop.train(range(4))
        ll.save_state(tmp_path / f"{case} torch", loop.model, loop.optimizer, loop.scheduler)
        wanted[case] = (loop.train(range(4, 9)), loop.weights())
    answers = value_of(from_torch, str(tmp_path), chosen)
    for case, dtype in chosen.items():
        near(wanted[case], answers[case], dtype)
        back = TorchLoop(torch, SPECS[case], dtype, 6)
        ll.load_state(tmp_path / f"{case} graph", back.model, back.optimizer, back.scheduler)
        near((wanted[case][0][3:], wanted[case][1]), (back.train(range(7, 9)), back.weights()), dtype)


def test_a_loop_without_this_library_goes_on(torch: Any, oneflow: Any, tmp_path: Path) -> None:
    from tests.support.oneflow_loops import Loop

    old = TorchLoop(torch, ll.Spec(ll.AdamW(0.01)), "float64")
    body = [parameter for name, parameter in old.model.named_parameters() if name not in HEAD]
    old.optimizer = torch.optim.AdamW([{"params": old.model.head.parameters()}, {"params": body}], lr=0.01)
    old.scheduler = None
    old.train(range(4))
    weights = {name: oneflow.tensor(array) for name, array in old.weights().items()}
    torch.save({"optimizer": old.optimizer.state_dict()}, tmp_path / "old.pth")
    wanted = old.train(range(4, 9))
    loop = Loop(ll.Spec(ll.AdamW(0.01), [ll.Group("*.bias"), ll.Group("head")]), 3, "float64")
    loop.model.load_state_dict(weights)
    ll.load_state(tmp_path / "old.pth", *loop.parts, names=NAMES)
    assert loop.scheduler.last_step == 4
    near((wanted, old.weights()), (loop.train(range(4, 9)), loop.weights()), "float64")


def test_a_plain_state_of_sgd_says_no_count(torch: Any, oneflow: Any) -> None:
    from tests.support.oneflow_loops import SPECS, Loop

    old = TorchLoop(torch, SPECS["SGD dampening"], "float64")
    old.train(range(4))
    weights = {name: oneflow.tensor(array) for name, array in old.weights().items()}
    table = torch.optim.SGD(old.model.parameters(), lr=1.0, momentum=0.9, dampening=0.3).state_dict()
    names = [name for name, _ in old.model.named_parameters()]
    by_name = dict(old.model.named_parameters())
    table["state"] = {index: old.optimizer.state[by_name[name]] for index, name in enumerate(names)}
    table["param_groups"][0]["params"] = list(range(len(names)))
    loop = Loop(SPECS["SGD dampening"], 3, "float64")
    loop.model.load_state_dict(weights)
    with pytest.raises(ll.SpecError, match="give step="):
        ll.load_state(table, *loop.parts)
    ll.load_state(table, *loop.parts, step=4)
    losses = loop.train(range(4, 9))
    near((old.train(range(4, 9)), old.weights()), (losses, loop.weights()), "float64")


def refusals(graph: bool, folder: str) -> dict[str, object]:
    """What each wrong state is answered with; and whether anything changed, by what the loop then did."""
    import layered_lr as ll
    from tests.support.oneflow_loops import GROUPS, PLATEAU, SPECS, GraphLoop, Loop, np

    kind = GraphLoop if graph else Loop
    adam = ll.Spec(ll.AdamW(0.01), GROUPS)
    short = ll.Spec(ll.AdamW(0.01), GROUPS, ll.Table([0.1] * 9))
    said = {}
    reactive = ll.Spec(ll.AdamW(0.01), GROUPS, PLATEAU)
    for place, spec in {"sgd": SPECS["SGD momentum"], "sgd plain": SPECS["SGD"], "reactive": reactive}.items():
        loop = Loop(spec)
        loop.train(range(2))
        ll.save_state(f"{folder}/{place}", *loop.parts)
    wide = Loop(adam, 0, "float64")
    wide.train(range(2))
    ll.save_state(f"{folder}/wide", *wide.parts)
    shapes = {name: p.shape for name, p in wide.model.named_parameters()}
    infinite = {
        "state": {
            index: {"step": 3, "exp_avg": np.full(shape, np.inf), "exp_avg_sq": np.ones(shape)}
            for index, shape in enumerate(shapes.values())
        },
        "param_groups": [{"params": list(range(len(shapes)))}],
    }
    lacking = {
        "state": {index: {"step": 3} for index in range(len(shapes))},
        "param_groups": infinite["param_groups"],
    }
    late = {"state": {}, "param_groups": infinite["param_groups"]}

    def attempt(name: str, loop: Loop, source: object, **options: object) -> None:
        try:
            ll.load_state(source, *loop.parts, **options)
            said[name] = "nothing"
        except ll.LayeredLRError as error:
            said[name] = f"{type(error).__name__}: {error}"

    other = kind(adam)
    losses = other.train(range(5))
    for updates in (0, 2):
        loop = kind(adam)
        done = loop.train(range(updates))
        for name in ("sgd", "reactive", "wide"):
            attempt(name, loop, f"{folder}/{name}")
        attempt("infinite", loop, infinite)
        attempt("lacking", loop, lacking)
        said[f"unchanged after {updates}"] = [*done, *loop.train(range(updates, 5))] == losses
    attempt("slots", kind(SPECS["SGD momentum"]), f"{folder}/sgd plain")
    attempt("too many", kind(SPECS["SGD"]), f"{folder}/sgd")
    attempt("late", kind(short), late, step=12)
    return said


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_wrong_states_change_nothing(oneflow: Any, graph: bool, tmp_path: Path) -> None:
    said = value_of(refusals, graph, str(tmp_path))
    assert said.pop("unchanged after 0") and said.pop("unchanged after 2")
    wanted = {
        "sgd": "CheckpointError: the state is of SGD, but the plan trains with AdamW",
        "reactive": "groups with reactive schedules are head, rest in the state, but none in the plan",
        "wide": "'body.weight' is float64 of shape (8, 12), but the model's is float32 of shape (8, 12); 'body.bias'",
        "infinite": "CheckpointError: exp_avg of 'body.weight' holds NaN or infinity",
        "lacking": "'exp_avg' is not in it (slots of 'body.weight'); 'exp_avg_sq' is not in it (slots of",
        "slots": "nothing",  # without updates, or without momentum, there are none: they begin anew
        "too many": "'momentum_buffer' is not in the optimizer (slots of",
        "late": "ScheduleEnded",
    }
    assert said.keys() == wanted.keys()
    for name, text in wanted.items():
        assert text in said[name], (name, said[name])


def strangers(folder: str) -> dict[str, str]:
    """What is said of objects that do not belong together."""
    import layered_lr as ll
    from tests.support.oneflow_loops import SPECS, GraphLoop, Loop, Outer, flow

    spec = SPECS["SGD momentum"]
    (eager, second), (graph, third) = ([kind(spec) for _ in range(2)] for kind in (Loop, GraphLoop))
    own = flow.optim.SGD(eager.model.parameters(), lr=0.1)
    ways = {
        "no scheduler": (eager.model, eager.optimizer),
        "no graph scheduler": (graph.model, graph.optimizer),
        "own optimizer": (eager.model, own, eager.scheduler),
        "own both": (eager.model, own, flow.optim.lr_scheduler.StepLR(own, 2)),
        "graph's scheduler": (graph.model, eager.optimizer, graph.scheduler),
        "eager scheduler": (graph.model, graph.optimizer, eager.scheduler),
        "other scheduler": (graph.model, graph.optimizer, third.scheduler),
        "other model": (eager.model, second.optimizer, second.scheduler),
        "other graph model": (third.model, graph.optimizer, graph.scheduler),
        "model around it": (Outer(eager.model), eager.optimizer, eager.scheduler),
        "no optimizer": (eager.model, eager.scheduler, eager.scheduler),
    }
    said = {}
    for name, objects in ways.items():
        for call in (ll.save_state, ll.load_state):
            try:
                ll.save_state(f"{folder}/state", *eager.parts)
                call(f"{folder}/state", *objects)
                said[f"{name}, {call.__name__}"] = "nothing"
            except ll.SpecError as error:
                said[f"{name}, {call.__name__}"] = str(error)
    return said


def test_objects_that_do_not_belong_together_are_refused(oneflow: Any, tmp_path: Path) -> None:
    said = value_of(strangers, str(tmp_path))
    give = "Give what ll.compile gave, (model, optimizer, scheduler), or for a graph (model, graph, graph.scheduler)"
    wanted = {
        "no scheduler": ["scheduler is missing; must be the one of ll.compile", give],
        "no graph scheduler": ["scheduler is missing; must be the one of ll.attach", give],
        "own optimizer": ["not the one that ll.compile gave together with this scheduler", give],
        "own both": ["scheduler is a StepLR; must be the one of ll.compile", give],
        "graph's scheduler": ["scheduler is a GraphScheduler; must be the one of ll.compile", give],
        "eager scheduler": ["scheduler is a PlanScheduler; must be the one of ll.attach", give],
        "other scheduler": ["scheduler: ll.attach gave it for another graph", give],
        "other model": ["6 of its 6 parameters are not the model's"],
        "other graph model": ["model: not the one that ll.attach(spec, graph, model) was given"],
        "model around it": ["model: not the one that the scheduler's plan is for, which differs in 'body.bias'"],
        "no optimizer": ["optimizer is a PlanScheduler; must be a oneflow.optim.Optimizer or a oneflow.nn.Graph", give],
    }
    assert len(said) == 2 * len(wanted)
    for name, text in said.items():
        for part in wanted[name.rpartition(", ")[0]]:
            assert part in text, name


def test_late_gradients_and_a_copy_of_the_optimizers_own_state(oneflow: Any, tmp_path: Path) -> None:
    """Parameters without updates have no slots; OneFlow's own ``load_state_dict`` is as good a start."""
    from layered_lr.state.state_files import read_state
    from tests.support.oneflow_loops import SPECS, Loop

    for case in ("SGD momentum", "AdamW", "RMSprop"):
        loop = Loop(SPECS[case])
        ll.save_state(tmp_path / "new", *loop.parts)
        assert read_state(tmp_path / "new").slots == {}
        for parameter in loop.model.head.parameters():
            parameter.requires_grad_(False)
        loop.train(range(3))
        ll.save_state(tmp_path / "part", *loop.parts)
        assert set(read_state(tmp_path / "part").slots) == set(NAMES) - set(HEAD)
        other = Loop(SPECS[case])
        other.optimizer.load_state_dict(loop.optimizer.state_dict())
        other.scheduler.load_state_dict(loop.scheduler.state_dict())
        other.model.load_state_dict(loop.model.state_dict())
        ll.save_state(tmp_path / "copy", *other.parts)
        mine, theirs = read_state(tmp_path / "part"), read_state(tmp_path / "copy")
        assert mine.step == theirs.step == 3
        for name, slots in mine.slots.items():
            same_arrays(slots, theirs.slots[name])
