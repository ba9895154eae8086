"""Many param groups on torch: fewer calls, and bitwise what torch's own step does with the same param groups."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from tests.support.models import mlp, mlp_weights
from tests.support.old_torch import torch_release

SHAPES = ((3, 4), (1,), (40,), (9000,), (7, 11), (2, 3, 5, 5))  # one of them more than a single thread is left with
STEPS = 9
by_hand = pytest.mark.filterwarnings("ignore:the lr of param group")  # which the scheduler says once, rightly
CASES: dict[str, ll.Optimizer] = {
    "SGD": ll.SGD(0.1),
    "SGD momentum": ll.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "SGD dampened up": ll.SGD(0.1, momentum=0.8, dampening=0.3, maximize=True),
    "SGD nesterov": ll.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD foreach": ll.SGD(0.1, momentum=0.9, foreach=True),
    "Adam": ll.Adam(0.01, weight_decay=0.01),
    "Adam amsgrad up": ll.Adam(0.01, amsgrad=True, maximize=True),
    "Adam decoupled": ll.Adam(0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "AdamW": ll.AdamW(0.01, amsgrad=True),
    "Adagrad": ll.Adagrad(0.05, lr_decay=0.1, initial_accumulator_value=0.1),
    "NAdam": ll.NAdam(0.01),
    "RAdam": ll.RAdam(0.01, weight_decay=0.01),
    "Adamax": ll.Adamax(0.01),
    "RMSprop": ll.RMSprop(0.01, momentum=0.5, centered=True),
    "Adadelta": ll.Adadelta(0.5),
    "LAMB": ll.LAMB(0.01),
    "LARS": ll.LARS(0.1, momentum=0.9),
    "Lion": ll.Lion(0.01, weight_decay=0.1),
}
FUSED = ("SGD momentum", "Adam", "AdamW", "Adagrad")
Change = Callable[[int, Any], None]


def model_of(torch: Any, dtype: str = "float32") -> Any:
    """A module of parameters alone, whose gradients the tests set."""
    model = torch.nn.Module()
    generator = torch.Generator().manual_seed(3)
    for index, shape in enumerate(SHAPES):
        start = torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        model.register_parameter(f"p{index}", torch.nn.Parameter(start))
    return model


def spec_of(optimizer: ll.Optimizer, rates: str = "own", **options: Any) -> ll.Spec:
    """A group for each parameter: at rates of its own, at one rate, or two and two alike."""
    scales = {"own": [1.0 - index / 10 for index in range(6)], "one": [1.0] * 6, "some": [1.0, 1.0, 0.5, 0.5, 0.5, 1.0]}
    groups = [ll.Group(f"p{index}", lr_scale=scale) for index, scale in enumerate(scales[rates])]
    return ll.Spec(optimizer, groups, ll.ExponentialLR(0.9), **options)


class Pair:
    """What ``ll.compile`` gives, and torch's own optimizer on a copy, told the same hyperparameters at each step."""

    def __init__(self, torch: Any, spec: ll.Spec, dtype: str = "float32", **plan: Any) -> None:
        self.torch = torch
        self.ours, self.theirs = model_of(torch, dtype), model_of(torch, dtype)
        self.optimizer, self.scheduler = ll.compile(spec, self.ours, **plan)
        self.own = self._oracle()

    def _oracle(self) -> Any:
        theirs = {id(mine): other for mine, other in zip(self.ours.parameters(), self.theirs.parameters(), strict=True)}
        groups = [
            {**group, "params": [theirs[id(tensor)] for tensor in group["params"]]}
            for group in self.optimizer.param_groups
        ]
        first = "initial_accumulator_value"  # torch takes Adagrad's from the constructor alone
        extra = {first: groups[0][first]} if first in groups[0] else {}
        made = type(self.optimizer)(groups, lr=1.0, **extra)
        assert type(made).step is made.step.__func__
        return made

    def gradients(self, at: int, without: tuple[int, ...] = ()) -> None:
        for index, (mine, other) in enumerate(zip(self.ours.parameters(), self.theirs.parameters(), strict=True)):
            generator = self.torch.Generator().manual_seed(100 * at + index)
            gradient = self.torch.randn(mine.shape, generator=generator).to(mine.dtype)
            mine.grad, other.grad = (None, None) if index in without else (gradient, gradient.clone())

    def follow(self) -> None:
        """Give torch's own the hyperparameters that ours has now."""
        for mine, other in zip(self.optimizer.param_groups, self.own.param_groups, strict=True):
            other.update({name: value for name, value in mine.items() if name != "params"})

    def step(self, at: int, without: tuple[int, ...] = ()) -> None:
        self.gradients(at, without)
        self.follow()
        self.optimizer.step()
        self.own.step()
        self.same()
        self.scheduler.step()

    def same(self) -> None:
        for mine, other in zip(self.ours.parameters(), self.theirs.parameters(), strict=True):
            assert self.torch.equal(mine, other)
            kept, expected = self.optimizer.state.get(mine, {}), self.own.state.get(other, {})
            assert kept.keys() == expected.keys()
            for name, value in expected.items():
                assert self.torch.equal(self.torch.as_tensor(kept[name]), self.torch.as_tensor(value)), name


@pytest.fixture(autouse=True)
def _two_threads(torch: Any) -> Iterator[None]:
    """So that what one thread does alone is done by one thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "a step leaves the number of threads as it was"
    torch.set_num_threads(threads)


@pytest.mark.parametrize("rates", ["own", "one", "some"])
@pytest.mark.parametrize("case", list(CASES))
def test_the_update_is_torchs_own(torch: Any, case: str, rates: str) -> None:
    pair = Pair(torch, spec_of(CASES[case], rates))
    groups = [dict(group) for group in pair.optimizer.param_groups]
    for at in range(STEPS):
        pair.step(at)
    assert [group.keys() for group in pair.optimizer.param_groups] == [group.keys() for group in groups]
    for mine, before in zip(pair.optimizer.param_groups, groups, strict=True):
        assert mine["params"] is before["params"] and mine["name"] == before["name"]


@pytest.mark.parametrize("case", FUSED)
def test_float64(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]), "float64")
    for at in range(3):
        pair.step(at)


@pytest.mark.parametrize("rates", ["own", "one"])
@pytest.mark.parametrize("case", list(CASES))
def test_parameters_that_come_late_or_never(torch: Any, case: str, rates: str) -> None:
    pair = Pair(torch, spec_of(CASES[case], rates))
    for at in range(STEPS):
        pair.step(at, without=(2, 4) if at < 3 else (2,) if at < 6 else (1, 2))


@pytest.mark.parametrize("case", FUSED)
def test_a_step_without_any_gradient(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]))
    for at in range(4):
        pair.step(at, without=tuple(range(6)) if at in (0, 2) else ())


@pytest.mark.parametrize("case", FUSED)
def test_groups_of_several_parameters(torch: Any, case: str) -> None:
    """And one with none, and one cut in two by what decays."""
    spec = ll.Spec(
        CASES[case],
        [
            ll.Group(["p0", "p3"], name="a"),
            ll.Group("p1", lr_scale=0.5),
            ll.Group("nothing", optional=True),
            ll.Group(["p2", "p4"], name="b", lr_scale=0.5, weight_decay=0.2),
        ],
        ll.ExponentialLR(0.9),
        no_weight_decay="1d",
    )
    pair = Pair(torch, spec)
    for at in range(STEPS):
        pair.step(at, without=(4,) if at % 3 == 2 else ())


@by_hand
@pytest.mark.parametrize("case", FUSED)
def test_what_the_user_changes_is_taken(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]))
    for at in range(STEPS):
        group = pair.optimizer.param_groups[at % 6]
        if at == 2:
            group["lr"] = 0.7
        elif at == 3:
            group["weight_decay"] = 0.3
        elif at == 4:
            group["lr"] = 1  # whole
        elif at == 5 and "betas" in group:
            group["betas"] = (0.5, 0.7)
        elif at == 6 and "momentum" in group:
            group["momentum"] = 0.0
        elif at == 7:
            group["foreach"], group["fused"] = True, False
        pair.step(at)


def adagrad_takes_added_groups(torch: Any) -> bool:
    """Whether torch's own can step after ``add_param_group``: that of torch 2.4 ends with a KeyError."""
    first, added = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.Adagrad([first])
    optimizer.add_param_group({"params": [added]})
    added.grad = torch.ones(2)
    try:
        optimizer.step()
    except KeyError:
        assert torch_release() < (2, 14)
        return False
    return True


@pytest.mark.parametrize("case", FUSED)
def test_a_param_group_that_the_user_adds(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]))
    pair.step(0)
    pair.step(1)
    for model, optimizer in ((pair.ours, pair.optimizer), (pair.theirs, pair.own)):
        model.register_parameter("added", torch.nn.Parameter(torch.ones(5)))
        optimizer.add_param_group({"params": [model.added], "lr": 0.03})
    if case == "Adagrad" and not adagrad_takes_added_groups(torch):
        pair.gradients(2)
        with pytest.raises(KeyError, match="sum"):
            pair.optimizer.step()
        return
    for at in range(2, 6):
        pair.step(at)
        assert pair.optimizer.param_groups[-1]["lr"] == pair.scheduler.get_last_lr()[-1] == 0.03
    assert pair.optimizer.param_groups[0]["lr"] == pytest.approx((0.1 if "SGD" in case else CASES[case].lr) * 0.9**6)


@pytest.mark.parametrize("case", ["SGD momentum", "AdamW", "NAdam"])
def test_momentum_that_moves(torch: Any, case: str) -> None:
    groups = [
        ll.Group(f"p{index}", schedule=ll.OneCycleLR(0.1 + index / 50, total_steps=STEPS + 2 + index))
        for index in range(5)
    ]
    pair = Pair(torch, ll.Spec(CASES[case], groups), total_steps=STEPS)
    seen = set()
    for at in range(STEPS):
        pair.step(at)
        group = pair.optimizer.param_groups[3]
        seen.add(group["momentum"] if "momentum" in group else group["betas"][0])
    assert len(seen) > 5


@pytest.mark.parametrize("case", FUSED)
@pytest.mark.parametrize("clip", [{"clip_grad_norm": 0.5}, {"clip_grad_value": 0.01}], ids=["norm", "value"])
def test_clipping_comes_first(torch: Any, case: str, clip: dict[str, float]) -> None:
    pair = Pair(torch, spec_of(CASES[case], **clip))
    for at in range(4):
        pair.gradients(at)
        pair.follow()
        pair.optimizer.step()
        if "clip_grad_norm" in clip:
            torch.nn.utils.clip_grad_norm_(list(pair.theirs.parameters()), 0.5)
        else:
            torch.nn.utils.clip_grad_value_(list(pair.theirs.parameters()), 0.01)
        pair.own.step()
        pair.same()
        pair.scheduler.step()


@pytest.mark.parametrize("case", [*FUSED, "NAdam"])
def test_closures_and_hooks(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]))
    calls: list[str] = []
    pair.optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    pair.optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    register = importlib.import_module("torch.optim.optimizer").register_optimizer_step_pre_hook
    everywhere = register(lambda one, *_: calls.append(type(one).__name__))
    for at in range(4):
        pair.gradients(at)
        pair.follow()
        if at % 2:
            assert pair.optimizer.step(lambda: 5.0) == 5.0
        else:
            assert pair.optimizer.step() is None
        assert calls == [type(pair.optimizer).__name__, "before", "after"]
        pair.own.step()
        calls.clear()
        pair.same()
        pair.scheduler.step()
    everywhere.remove()


@pytest.mark.parametrize("case", FUSED)
def test_a_grad_scaler_scales_and_skips(torch: Any, case: str) -> None:
    pair = Pair(torch, spec_of(CASES[case]))
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2) for _ in range(2)]
    for at in range(6):
        pair.gradients(at)
        pair.follow()
        for model, optimizer, scaler in zip((pair.ours, pair.theirs), (pair.optimizer, pair.own), scalers, strict=True):
            scaler.scale(torch.ones(()))
            if at == 3:
                model.p1.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
        assert scalers[0].get_scale() == scalers[1].get_scale()
        pair.same()
        pair.scheduler.step()


@by_hand
@pytest.mark.parametrize("case", [*FUSED, "NAdam"])
def test_saved_copied_and_loaded(torch: Any, case: str) -> None:
    """A saved state is torch's own; a copy is of the same class, and steps alike."""
    pair = Pair(torch, spec_of(CASES[case]))
    for at in range(3):
        pair.step(at)
    file = io.BytesIO()
    torch.save(pair.optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert [group["name"] for group in saved["param_groups"]][:2] == ["p0", "p1"]
    pair.step(3)
    pair.step(4)
    pair.optimizer.load_state_dict(saved)
    pair.own.load_state_dict(copy.deepcopy(saved))  # which takes the tensors over
    for at in range(5, 8):
        pair.step(at)
    twin = copy.deepcopy(pair.optimizer)
    assert type(twin) is type(pair.optimizer)
    for mine, other in zip(pair.ours.parameters(), _parameters(twin), strict=True):
        other.grad = mine.grad.clone()
    twin.step()
    pair.optimizer.step()
    for mine, other in zip(_parameters(pair.optimizer), _parameters(twin), strict=True):
        assert torch.equal(mine, other)
    assert pickle.loads(pickle.dumps(pair.optimizer)).param_groups[0]["name"] == "p0"


def _parameters(optimizer: Any) -> list[Any]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


KERNELS = {
    "SGD momentum": ("torch", "_fused_sgd_"),
    "Adam": ("torch", "_fused_adam_"),
    "AdamW": ("torch", "_fused_adamw_"),
    "Adagrad": ("torch", "_fused_adagrad_"),
    "NAdam": ("torch.optim.nadam", "nadam"),
    "Adadelta": ("torch.optim.adadelta", "adadelta"),
}


@pytest.mark.parametrize("case", list(KERNELS))
@pytest.mark.parametrize(("rates", "calls"), [("own", 6), ("some", 2), ("one", 1)])
def test_there_is_a_call_for_each_rate(
    torch: Any, case: str, rates: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function = KERNELS[case]
    place = importlib.import_module(module)
    real, seen = getattr(place, function), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(len(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(place, function, counted)
    pair = Pair(torch, spec_of(CASES[case], rates))
    pair.gradients(0)
    pair.optimizer.step()
    for at in range(1, 3):
        pair.gradients(at)
        seen.clear()
        pair.optimizer.step()
        assert len(seen) == calls and sum(seen) == len(SHAPES)


def test_a_few_groups_step_as_torch_does(torch: Any) -> None:
    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("p0")]), model_of(torch))
    step = optimizer.step
    wrapped = getattr(step, "__wrapped__", None) or inspect.getclosurevars(step).nonlocals["func"]  # torch 2.4
    assert wrapped is type(optimizer).step


def test_kernels_that_are_not_what_they_were_are_not_used(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr_torch import fused_kernels

    def other(*args: Any, **kwargs: Any) -> None:
        raise TypeError("no such argument")

    fused_kernels.is_exact.cache_clear()
    monkeypatch.setattr(fused_kernels.FusedStep, "_make_update", other)
    try:
        pair = Pair(torch, spec_of(CASES["Adam"]))
        for at in range(3):
            pair.step(at)
    finally:
        fused_kernels.is_exact.cache_clear()


@pytest.mark.parametrize("case", ["SGD momentum", "AdamW", "RMSprop"])
def test_a_run_with_a_group_for_each_parameter_is_a_run(torch: Any, case: str) -> None:
    """The same rates in one group and in four: the same weights, and the rates read back by group."""
    from tests.support.models import arrays

    options = {"model": mlp(torch), "data": arrays(), "max_steps": 7, "batch_size": 8, "progress": False}
    groups = [ll.Group(name) for name in list(mlp_weights())[:3]] + [
        ll.Group("3", name="last"),
        ll.Group("x", optional=True),
    ]
    spec = ll.Spec(CASES[case], groups, ll.ExponentialLR(0.9))
    many = ll.run(spec, "torch-eager", initial_weights=mlp_weights(), **options)
    few = ll.run(
        ll.Spec(CASES[case], (), ll.ExponentialLR(0.9)), "torch-eager", initial_weights=mlp_weights(), **options
    )
    assert len(many.rates) == 5
    assert all(np.array_equal(rates, few.rates["rest"]) for rates in many.rates.values())
    assert many.losses.tolist() == few.losses.tolist()
    assert all(np.array_equal(many.weights[name], few.weights[name]) for name in few.weights)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("case", FUSED)
def test_a_few_groups_in_a_run_step_as_torch_does(torch: Any, case: str, groups: int) -> None:
    """The oracle is a loop with torch's own optimizer; one parameter has no gradient in the end."""
    names = list(mlp_weights())
    parts = [ll.Group(name, lr_scale=0.5 - place / 8) for place, name in enumerate(names[: groups - 1])]
    spec = ll.Spec(CASES[case], parts, ll.ExponentialLR(0.9))
    backend = load_backend("torch-eager", "cpu")
    ours, theirs = (backend.build(mlp(torch), 3, 0.0, 0) for _ in range(2))
    plan = ll.resolve(spec, ours, total_steps=STEPS)
    session: Any = backend.open(plan, ours, 3)
    twins = dict(theirs.named_parameters())
    first = {"initial_accumulator_value": 0.1} if case == "Adagrad" else {}  # taken from the constructor alone
    own = type(session.optimizer)(
        [
            {**group, "params": [twins[name] for name in its.parameters]}
            for group, its in zip(session.optimizer.param_groups, plan.groups, strict=True)
        ],
        **first,
    )
    assert len(own.param_groups) == groups
    rng = np.random.default_rng(0)
    for at in range(STEPS):
        if at == STEPS // 2:
            for model in (ours, theirs):
                next(model.parameters()).requires_grad_(False)
        x, y = rng.standard_normal((8, 3, 2, 2)).astype(np.float32), np.arange(8) % 3
        handle = session.train_step(x, y)
        for group, rate in zip(own.param_groups, plan.rates(at), strict=True):
            group["lr"] = rate
        own.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        own.step()
        assert session.losses([handle])[0] == loss.item()
        for name, tensor in ours.named_parameters():
            assert torch.equal(tensor, twins[name]), (at, name)


@pytest.mark.parametrize("case", ["SGD", "AdamW"])
def test_who_listens_to_a_runs_optimizer_hears_it(torch: Any, case: str) -> None:
    """Hooks of one optimizer and of all, a profiler, and whatever has taken the step's place."""
    backend = load_backend("torch-eager", "cpu")
    model = backend.build(mlp(torch), 3, 0.0, 0)
    session: Any = backend.open(ll.resolve(ll.Spec(CASES[case]), model, total_steps=20), model, 3)
    x, y = np.ones((8, 3, 2, 2), np.float32), np.arange(8) % 3
    heard: list[str] = []

    def heard_by(what: Callable[[Any], Any]) -> None:
        heard.clear()
        hook = what(lambda *_: heard.append("heard"))
        session.train_step(x, y)
        hook.remove()
        assert heard == ["heard"]

    session.train_step(x, y)
    module = importlib.import_module("torch.optim.optimizer")
    heard_by(session.optimizer.register_step_pre_hook)
    heard_by(session.optimizer.register_step_post_hook)
    heard_by(module.register_optimizer_step_pre_hook)
    heard_by(module.register_optimizer_step_post_hook)
    with torch.autograd.profiler.profile() as profile:
        session.train_step(x, y)
    assert any(event.name.startswith("Optimizer.step") for event in profile.function_events)
    before = [tensor.clone() for tensor in model.parameters()]
    session.optimizer.step = lambda: None
    session.train_step(x, y)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


PAPERS: dict[str, dict[str, Any]] = {
    "LAMB": {"weight_decay": 0.1},
    "LARS": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "Lion": {"weight_decay": 0.1, "betas": [0.8, 0.95]},  # a list, as JSON would have it
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("name", PAPERS)
def test_optimizers_from_papers_take_groups_of_other_rates_together(
    torch: Any, name: str, foreach: bool | None, dtype: str
) -> None:
    """The oracle is an optimizer for each group alone; groups 0 and 3 have a hyperparameter of their own as well."""
    cls = getattr(importlib.import_module("layered_lr_torch.paper_optimizers"), name)
    together, apart = model_of(torch, dtype), model_of(torch, dtype)
    decays = {0: 0.01, 3: 0.01}

    def groups(model: Any) -> list[dict[str, Any]]:
        return [
            {"params": [parameter], "lr": 0.3 / (1 + number), "weight_decay": decays.get(number, 0.1)}
            for number, parameter in enumerate(model.parameters())
        ]

    one = cls(groups(together), **PAPERS[name], foreach=foreach)
    each = [cls([group], **PAPERS[name], foreach=foreach) for group in groups(apart)]
    generator = torch.Generator().manual_seed(5)
    for step in range(4):
        for number, (mine, other) in enumerate(zip(together.parameters(), apart.parameters(), strict=True)):
            gradient = torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            absent = step == 1 and number == 2  # no gradient for once
            mine.grad, other.grad = (None, None) if absent else (gradient, gradient.clone())
        one.param_groups[4]["lr"] *= 0.5
        each[4].param_groups[0]["lr"] *= 0.5
        one.step()
        for optimizer in each:
            optimizer.step()
    for mine, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_where_torch_hides_its_hooks_its_own_step_is_called(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr_torch.grouped_steps import HooklessStep

    model = model_of(torch)
    optimizer, _ = ll.compile(spec_of(CASES["SGD momentum"]), model)
    calls: list[int] = []
    own = optimizer.step
    optimizer.step = lambda: calls.append(own() or 1)
    with monkeypatch.context() as patched:
        patched.delattr(sys.modules[torch.optim.Optimizer.__module__], "_global_optimizer_pre_hooks")
        hookless = HooklessStep(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(3):
        hookless.step(optimizer)
    assert calls == [1, 1, 1]
