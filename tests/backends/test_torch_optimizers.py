"""Every optimizer on torch: torch itself, driven by hand, is the oracle."""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.models.nn_modules import dtype_of
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.plans.text import plan_text
from tests.support.models import arrays, mlp, mlp_weights

STEPS = 50
SPECIAL = ("Muon", "SparseAdam", "LBFGS")  # not for any model; test_special_optimizers.py has them
TORCHS = [name for name in OPTIMIZERS if name not in ("LAMB", "LARS", "Lion", *SPECIAL)]
PATTERNS = ("1", "3.bias")  # and the rest: 3.weight
MEMBERS = (("1.weight", "1.bias"), ("3.bias",), ("3.weight",))
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.8, "nesterov": True}],
    "Adam": [{"amsgrad": True}, {"decoupled_weight_decay": True}],
    "AdamW": [{"amsgrad": True}],
    "NAdam": [{"decoupled_weight_decay": True}],
    "RAdam": [{"decoupled_weight_decay": True}],
    "RMSprop": [{"momentum": 0.9}, {"centered": True}, {"momentum": 0.5, "centered": True}],
    "Adagrad": [{"lr_decay": 0.01, "initial_accumulator_value": 0.1}],
}
CASES = [
    pytest.param(name, variant | {"maximize": maximize}, id="-".join([name, *variant, *["maximize"] * maximize]))
    for name in TORCHS
    for variant in [{}, *VARIANTS.get(name, [])]
    for maximize in (False, True)
]


def rng_of(*seeds: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(seeds).encode()))


def hyperparameters(kind: type[Any], rng: np.random.Generator) -> dict[str, Any]:
    """Random values for whatever an optimizer has and is not a switch."""
    drawn = {
        "weight_decay": float(rng.uniform(1e-3, 0.1)),
        "betas": (float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.9, 0.9999))),
        "eps": float(10 ** rng.uniform(-9, -3)),
        "momentum_decay": float(rng.uniform(1e-3, 1e-2)),
        "alpha": float(rng.uniform(0.8, 0.99)),
        "rho": float(rng.uniform(0.8, 0.99)),
        "initial_accumulator_value": float(rng.uniform(0, 0.1)),
    }
    known = inspect.signature(kind).parameters
    if kind is ll.Adafactor:
        drawn["eps"] = (float(10 ** rng.uniform(-9, -3)), float(10 ** rng.uniform(-4, -2)))
    return {name: value for name, value in drawn.items() if name in known and name not in kind.__lacks__}


class Case:
    """A spec of three groups with random rates, hyperparameters and tables of rates by step."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        kind = OPTIMIZERS[name]
        rng = rng_of(name, *settings)
        size = 0.5 if name == "Adadelta" else 1e-3  # whose steps have the size of the root of eps, times the rate
        self.rates = size * rng.uniform(0.1, 2.0, (STEPS, 3))
        self.groups = [hyperparameters(kind, rng) | settings for _ in range(3)]
        table = [self.rates[:, column].tolist() for column in range(3)]
        self.spec = ll.Spec(
            optimizer=kind(1.0, **self.groups[2]),
            groups=[
                ll.Group(pattern, schedule=ll.Table(table[column]), **_without(self.groups[column], settings))
                for column, pattern in enumerate(PATTERNS)
            ],
            schedule=ll.Table(table[2]),
        )


def _without(group: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in settings or name in ("momentum", "lr_decay")}


def model_of(torch: Any, dtype: str) -> Any:
    model = mlp(torch)().to(getattr(torch, dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(mlp_weights()[name]))
    return model


@functools.cache
def batches(dtype: str) -> list[tuple[Any, Any]]:
    torch = pytest.importorskip("torch")
    x, y, _, _ = arrays(64)
    cast = torch.tensor(x).to(getattr(torch, dtype))
    return list(zip(cast.split(8), torch.tensor(y).split(8), strict=True))


def backward(torch: Any, model: Any, at: int) -> None:
    """The gradient of a bounded loss, so that going up it leads nowhere infinite."""
    x, y = batches(dtype_of(next(model.parameters())))[at % 8]
    model.zero_grad(set_to_none=True)
    loss = 1 - torch.softmax(model(x), 1)[torch.arange(8), y].mean()
    loss.backward()


@pytest.fixture(autouse=True)
def _one_thread(torch: Any) -> Iterator[None]:
    """The models are tiny, and other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_hand(torch: Any, model: Any, case: Case, name: str, **how: Any) -> None:
    """Torch alone: its class, its param groups, its rates set by assignment."""
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[member] for member in members], **settings}
        for members, settings in zip(MEMBERS, case.groups, strict=True)
    ]
    optimizers = [getattr(torch.optim, name)(groups, **how)]
    if name == "Adagrad":  # torch takes the sums' first value from the constructor alone
        first = "initial_accumulator_value"
        optimizers = [torch.optim.Adagrad([group], **{first: group[first]}, **how) for group in groups]
    for at in range(STEPS):
        backward(torch, model, at)
        params = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(params, case.rates[at], strict=True):
            group["lr"] = rate
        for optimizer in optimizers:
            optimizer.step()


def values(model: Any) -> NDArray[np.float64]:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def chosen(optimizer: Any) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: group[name] for name in ("foreach", "fused") if name in group}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_many_steps_are_torchs(torch: Any, name: str, settings: dict[str, Any], dtype: str) -> None:
    case = Case(name, settings)
    ours, same, plain = (model_of(torch, dtype) for _ in range(3))
    start = values(ours)
    optimizer, scheduler = ll.compile(case.spec, ours, total_steps=STEPS)
    assert type(optimizer) is getattr(torch.optim, name)
    for at in range(STEPS):
        backward(torch, ours, at)
        optimizer.step()
        scheduler.step()
    by_hand(torch, same, case, name, **chosen(optimizer))
    assert np.array_equal(values(ours), values(same)), "the same implementation makes the same bits"
    moved = np.abs(values(ours) - start).max()
    assert moved > 1e-3
    if dtype == "float64":
        by_hand(torch, plain, case, name, foreach=False, **({"fused": False} if "fused" in chosen(optimizer) else {}))
        assert np.abs(values(ours) - values(plain)).max() < 1e-9 * moved  # implementations round differently


def stepped(torch: Any, spec: ll.Spec, steps: int, model: Any, before: Callable[[int], None] | None = None) -> Any:
    """The optimizer after some steps."""
    optimizer, scheduler = ll.compile(spec, model, total_steps=steps)
    for at in range(steps):
        backward(torch, model, at)
        if before:
            before(at)
        optimizer.step()
        scheduler.step()
    return optimizer


# Written from the papers' algorithms, one array at a time, in float64, knowing nothing of this library.


def lamb(w: Any, g: Any, s: dict[str, Any], t: int, lr: float, h: dict[str, Any]) -> Any:
    """Algorithm 2 of arXiv:1904.00962, with phi(z) = z."""
    b1, b2 = h["betas"]
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    r = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])
    u = r + h["weight_decay"] * w
    ratio = np.linalg.norm(w) / np.linalg.norm(u) if np.linalg.norm(w) > 0 and np.linalg.norm(u) > 0 else 1
    return w - lr * ratio * u


def lars(w: Any, g: Any, s: dict[str, Any], t: int, lr: float, h: dict[str, Any]) -> Any:
    """Algorithm 1 of arXiv:1708.03888, with the global rate outside of the momentum."""
    norm, size = np.linalg.norm(w), np.linalg.norm(g)
    local = h["trust_coefficient"] * norm / (size + h["weight_decay"] * norm + h["eps"]) if norm > 0 and size > 0 else 1
    d = local * (g + h["weight_decay"] * w)
    s["v"] = d if t == 1 else h["momentum"] * s["v"] + (1 - h["dampening"]) * d
    return w - lr * (d + h["momentum"] * s["v"] if h["nesterov"] else s["v"])


def lion(w: Any, g: Any, s: dict[str, Any], t: int, lr: float, h: dict[str, Any]) -> Any:
    """Algorithm 2 of arXiv:2302.06675."""
    b1, b2 = h["betas"]
    m = s.get("m", np.zeros_like(w))
    c = b1 * m + (1 - b1) * g
    s["m"] = b2 * m + (1 - b2) * g
    return w - lr * (np.sign(c) + h["weight_decay"] * w)


PAPERS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "LAMB": (lamb, [{}]),
    "LARS": (lars, [{}, {"momentum": 0.0}, {"dampening": 0.3}, {"nesterov": True}]),
    "Lion": (lion, [{}]),
}
PAPER_CASES = [
    pytest.param(name, variant, id="-".join([name, *variant])) for name, (_, all_) in PAPERS.items() for variant in all_
]


@pytest.mark.parametrize("how", ["foreach", "for-loop"])
@pytest.mark.parametrize("maximize", [False, True], ids=["down", "up"])
@pytest.mark.parametrize(("name", "variant"), PAPER_CASES)
def test_100_steps_are_the_papers(torch: Any, name: str, variant: dict[str, Any], maximize: bool, how: str) -> None:
    kind, formula, rng = OPTIMIZERS[name], PAPERS[name][0], rng_of(name)
    settings = hyperparameters(kind, rng) | variant
    model = model_of(torch, "float64")
    optimizer = kind(0.01, maximize=maximize, foreach=how == "foreach", **settings)
    spec = ll.Spec(optimizer, [ll.Group("1", lr_scale=0.3)], ll.LinearLR(total_iters=50))
    rates = ll.resolve(spec, model).table(0, 100)
    expected = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    start, states = values(model), {name: {} for name in expected}

    def by_formula(at: int) -> None:
        for member, parameter in model.named_parameters():
            gradient = parameter.grad.numpy() * (-1 if maximize else 1)
            rate = rates[at, 0 if member.startswith("1") else 1]
            expected[member] = formula(expected[member], gradient, states[member], at + 1, rate, asdict(optimizer))

    stepped(torch, spec, 100, model, by_formula)
    wanted = np.concatenate([array.ravel() for array in expected.values()])
    moved = np.abs(values(model) - start).max()
    assert moved > 1e-4
    assert np.abs(values(model) - wanted).max() < 1e-12 * max(moved, 1)  # float64's rounding, some hundred times


@pytest.mark.parametrize("name", list(PAPERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_foreach_and_for_loop_are_the_same_formula(torch: Any, name: str, dtype: str) -> None:
    ends = []
    for foreach in (True, False):
        model = model_of(torch, dtype)
        stepped(torch, ll.Spec(OPTIMIZERS[name](0.01, weight_decay=0.01, foreach=foreach)), 30, model)
        ends.append(values(model))
    np.testing.assert_allclose(*ends, atol={"float32": 1e-5, "float64": 1e-13}[dtype])  # rounding, over 30 steps


def one_step(torch: Any, optimizer: Any, weight: list[float], gradient: list[float]) -> NDArray[np.float64]:
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))
    made, _ = ll.compile(ll.Spec(optimizer), model)
    model.w.grad = torch.tensor(gradient, dtype=torch.float64)
    made.step()
    return model.w.detach().numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("foreach", [True, False])
def test_lamb_at_zero_weights_is_adam(torch: Any, foreach: bool) -> None:
    """There the trust ratio is 1."""
    gradient = [0.3, -4.0, 1e-3]
    lamb_step = one_step(torch, ll.LAMB(0.1, eps=1e-8, weight_decay=0, foreach=foreach), [0.0] * 3, gradient)
    np.testing.assert_allclose(lamb_step, one_step(torch, ll.Adam(0.1), [0.0] * 3, gradient), rtol=1e-14)


@pytest.mark.parametrize("foreach", [True, False])
def test_lions_steps_have_the_size_of_the_rate(torch: Any, foreach: bool) -> None:
    moved = one_step(torch, ll.Lion(0.125, foreach=foreach), [1.0, 1.0, 1.0, 1.0], [5.0, -1e-9, 0.0, 1e30])
    assert moved.tolist() == [0.875, 1.125, 1.0, 0.875]


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("extra", [{}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}])
def test_lars_where_its_trust_is_1_is_sgd(torch: Any, extra: dict[str, Any], foreach: bool) -> None:
    """Of ``|w|^2 / 2`` the gradient is the weight, so that their norms are the same."""
    ends = []
    for settings in (
        ll.LARS(0.1, trust_coefficient=1, eps=0, foreach=foreach, **({"momentum": 0} | extra)),
        ll.SGD(0.1, fused=False, foreach=foreach, **extra),
    ):
        model = model_of(torch, "float64")
        optimizer, _ = ll.compile(ll.Spec(settings), model)
        for _ in range(20):
            for parameter in model.parameters():
                parameter.grad = parameter.detach().clone()
            optimizer.step()
        ends.append(values(model))
    np.testing.assert_allclose(*ends, rtol=1e-13)  # float64's rounding, twenty times


@pytest.mark.parametrize("name", list(PAPERS))
def test_saved_and_loaded_state_goes_on_bitwise(torch: Any, name: str) -> None:
    spec = ll.Spec(OPTIMIZERS[name](0.01, weight_decay=0.01))
    whole = model_of(torch, "float32")
    stepped(torch, spec, 8, whole)
    model = model_of(torch, "float32")
    saved = stepped(torch, spec, 5, model).state_dict()
    keys = {"LAMB": {"step", "exp_avg", "exp_avg_sq"}, "LARS": {"momentum_buffer"}, "Lion": {"exp_avg"}}
    assert set(saved["state"][0]) == keys[name]
    optimizer, _ = ll.compile(spec, model)
    optimizer.load_state_dict(saved)
    for at in range(5, 8):
        backward(torch, model, at)
        optimizer.step()
    assert np.array_equal(values(model), values(whole))


@pytest.mark.parametrize("name", list(PAPERS))
@pytest.mark.parametrize("foreach", [True, False])
def test_parameters_without_a_gradient_stay_and_join_later(torch: Any, name: str, foreach: bool) -> None:
    model = model_of(torch, "float32")
    start = model[1].bias.detach().clone()

    def drop(at: int) -> None:
        if at < 3:
            model[1].bias.grad = None
            assert torch.equal(model[1].bias, start)

    optimizer = stepped(torch, ll.Spec(OPTIMIZERS[name](0.01, foreach=foreach)), 5, model, drop)
    assert not torch.equal(model[1].bias, start)
    if name == "LAMB":
        assert [int(optimizer.state[p]["step"]) for p in model.parameters()] == [5, 2, 5, 5]


@pytest.mark.parametrize("name", list(PAPERS))
def test_a_closure_is_evaluated_with_gradients(torch: Any, name: str) -> None:
    model = model_of(torch, "float32")
    optimizer, _ = ll.compile(ll.Spec(OPTIMIZERS[name](0.1)), model)
    start = values(model)

    def closure() -> Any:
        backward(torch, model, 0)
        return torch.tensor(7.0)

    assert optimizer.step(closure) == 7
    assert not np.array_equal(values(model), start)


@pytest.mark.parametrize("name", list(PAPERS))
def test_sparse_gradients_are_refused_as_torch_does(torch: Any, name: str) -> None:
    model = torch.nn.Embedding(5, 2, sparse=True)
    optimizer, _ = ll.compile(ll.Spec(OPTIMIZERS[name]()), model)
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


# Which implementation.


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in SPECIAL])
def test_the_plan_says_the_implementation_that_runs(torch: Any, name: str) -> None:
    spec = ll.Spec(OPTIMIZERS[name](0.1))
    model = model_of(torch, "float32")
    optimizer, _ = ll.compile(spec, model)
    how = {"foreach": optimizer.param_groups[0].get("foreach"), "fused": optimizer.param_groups[0].get("fused")}
    words = "fused" if how["fused"] else "foreach" if how["foreach"] else "for-loop"
    text = plan_text(ll.resolve(spec, model), "torch-eager")
    owner = "torch.optim" if hasattr(torch.optim, name) else "layered_lr_torch"
    assert f"{owner}.{name}, {words}" in text


@pytest.mark.parametrize("choice", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_the_users_choice_is_torchs_argument(torch: Any, name: str, choice: dict[str, bool]) -> None:
    optimizer, _ = ll.compile(ll.Spec(OPTIMIZERS[name](0.1, **choice)), model_of(torch, "float32"))
    assert chosen(optimizer) == {"foreach": None, "fused": None} | choice


def test_sparse_embeddings_train_although_fused_would_be_faster(torch: Any) -> None:
    model = torch.nn.Embedding(5, 2, sparse=True)
    torch.nn.init.zeros_(model.weight)  # a difference of 0.5 is exact there
    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.5)), model)
    start = model.weight.detach().clone()
    model(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    assert torch.equal((start - model.weight.detach())[:, 0], torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0]))


def test_an_option_that_this_torch_lacks_is_refused_unless_it_says_nothing(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Adam(torch.optim.Adam):  # type: ignore[name-defined, misc]
        def __init__(
            self,
            params: Any,
            lr: Any,
            betas: Any,
            eps: Any,
            weight_decay: Any,
            amsgrad: Any,
            maximize: Any,
            foreach: Any,
            fused: Any,
        ) -> None:
            super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    ll.compile(ll.Spec(ll.Adam()), model_of(torch, "float32"))
    with pytest.raises(ll.Unsupported, match="decoupled_weight_decay"):
        ll.compile(ll.Spec(ll.Adam(decoupled_weight_decay=True)), model_of(torch, "float32"))


# Param groups.


def test_a_group_with_undecayed_parameters_has_two_param_groups(torch: Any) -> None:
    model = model_of(torch, "float32")
    schedule = ll.OneCycleLR(max_lr=0.1, total_steps=10)
    spec = ll.Spec(
        ll.AdamW(0.1, weight_decay=0.1), [ll.Group("1", lr_scale=0.5, weight_decay=0.3)], schedule, no_weight_decay="1d"
    )
    optimizer, scheduler = ll.compile(spec, model, total_steps=10)
    plan = ll.resolve(spec, model, 10)
    for at in range(10):
        groups = optimizer.param_groups
        assert [group["name"] for group in groups] == ["1", "1 (no weight decay)", "rest", "rest (no weight decay)"]
        assert [group["weight_decay"] for group in groups] == [0.3, 0, 0.1, 0]
        assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(8, 12)], [(8,)], [(3, 8)], [(3,)]]
        one, rest = plan.rates(at)
        assert [group["lr"] for group in groups] == scheduler.get_last_lr() == [one, one, rest, rest]
        momentum = plan.momenta(at)[0]
        assert [group["betas"] for group in groups] == [(momentum, 0.999)] * 4
        backward(torch, model, at)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("rule", ["1d", ("re:.*bias",), ("1.bias", "3.bias")])
def test_no_weight_decay_is_torchs_hand_made_groups(torch: Any, rule: Any) -> None:
    ours, theirs = model_of(torch, "float32"), model_of(torch, "float32")
    optimizer = stepped(torch, ll.Spec(ll.AdamW(0.01, weight_decay=0.5), no_weight_decay=rule), 50, ours)
    named = dict(theirs.named_parameters())
    oracle = torch.optim.AdamW(
        [
            {"params": [named["1.weight"], named["3.weight"]]},
            {"params": [named["1.bias"], named["3.bias"]], "weight_decay": 0},
        ],
        lr=0.01,
        weight_decay=0.5,
        **chosen(optimizer),
    )
    for at in range(50):
        backward(torch, theirs, at)
        oracle.step()
    assert np.array_equal(values(ours), values(theirs))


def test_adagrads_sums_begin_with_the_groups_own_value(torch: Any) -> None:
    spec = ll.Spec(ll.Adagrad(initial_accumulator_value=0.25), [ll.Group("1", initial_accumulator_value=4.0)])
    model = model_of(torch, "float32")
    optimizer, _ = ll.compile(spec, model)
    sums = [float(optimizer.state[parameter]["sum"].unique()) for parameter in model.parameters()]
    assert sums == [4.0, 4.0, 0.25, 0.25]


# Clipping in a loop of the user's own.

CLIPS = [{"clip_grad_norm": 0.1}, {"clip_grad_norm": 0.1, "clip_per_group": True}, {"clip_grad_value": 0.01}]


def clipped_by_hand(torch: Any, model: Any, clip: dict[str, Any]) -> None:
    clip_norm = torch.nn.utils.clip_grad_norm_
    if "clip_grad_value" in clip:
        torch.nn.utils.clip_grad_value_(model.parameters(), clip["clip_grad_value"])
    elif "clip_per_group" in clip:
        for part in (model[1], model[3]):
            clip_norm(part.parameters(), clip["clip_grad_norm"])
    else:
        clip_norm(model.parameters(), clip["clip_grad_norm"])


def clip_id(clip: dict[str, Any]) -> str:
    return "-".join(clip)


@pytest.mark.parametrize("clip", CLIPS, ids=clip_id)
@pytest.mark.parametrize("with_closure", [False, True], ids=["plain", "closure"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipping_is_torchs(torch: Any, clip: dict[str, Any], with_closure: bool, dtype: str) -> None:
    ours, theirs, free = (model_of(torch, dtype) for _ in range(3))
    made = [
        ll.compile(ll.Spec(ll.SGD(0.5, momentum=0.9), [ll.Group("1")], no_weight_decay="1d", **kwargs), model)[0]
        for model, kwargs in ((ours, clip), (theirs, {}), (free, {}))
    ]
    for at in range(20):
        if with_closure:
            made[0].step(lambda at=at: backward(torch, ours, at))
        else:
            backward(torch, ours, at)
            made[0].step()
        backward(torch, theirs, at)
        backward(torch, free, at)
        clipped_by_hand(torch, theirs, clip)
        made[1].step()
        made[2].step()
    assert np.array_equal(values(ours), values(theirs))
    assert not np.array_equal(values(ours), values(free))


def test_clipping_skips_what_has_no_gradient(torch: Any) -> None:
    ours, theirs = model_of(torch, "float32"), model_of(torch, "float32")
    clip = {"clip_grad_norm": 0.1, "clip_per_group": True}
    made = [
        ll.compile(ll.Spec(ll.SGD(0.5), [ll.Group("1")], **kwargs), model)[0]
        for model, kwargs in ((ours, clip), (theirs, {}))
    ]
    for model, optimizer in zip((ours, theirs), made, strict=True):
        for at in range(6):
            backward(torch, model, at)
            if at % 2:
                model[1].weight.grad = model[1].bias.grad = None
            if model is theirs:
                clipped_by_hand(torch, model, clip)
            optimizer.step()
    assert np.array_equal(values(ours), values(theirs))
    ours.zero_grad(set_to_none=True)
    made[0].step()


def test_an_infinite_clip_only_measures(torch: Any) -> None:
    """Where torch's own function would make NaN of an infinite gradient, and of all others."""
    model = model_of(torch, "float32")
    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.5), clip_grad_norm=float("inf")), model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    optimizer.step()
    assert not np.isnan(values(model)).any()


def test_a_grad_scaler_unscales_before_the_clipping(torch: Any) -> None:
    """Also where the fused optimizer would unscale by itself."""
    ours, theirs = model_of(torch, "float32"), model_of(torch, "float32")
    spec = ll.Spec(ll.SGD(0.5, fused=True), clip_grad_norm=0.1)
    optimizer, _ = ll.compile(spec, ours)
    oracle = torch.optim.SGD(theirs.parameters(), 0.5, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # a power of two: scaling rounds nothing
    for at in range(5):
        for model in (ours, theirs):
            backward(torch, model, at)
        for parameter in ours.parameters():
            parameter.grad.mul_(1024)
        scaler.scale(torch.ones(()))  # makes the scaler begin
        scaler.step(optimizer)
        scaler.update()
        clipped_by_hand(torch, theirs, {"clip_grad_norm": 0.1})
        oracle.step()
    assert np.array_equal(values(ours), values(theirs))


def test_without_clipping_no_hook_clips(torch: Any) -> None:
    from layered_lr_torch.replaced_parameters import ReplacedParameters

    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.5)), model_of(torch, "float32"))
    (hook,) = optimizer._optimizer_step_pre_hooks.values()
    assert isinstance(hook.__self__, ReplacedParameters), "which looks once, before the first update, and clips nothing"


@pytest.mark.parametrize("dampening", [0.0, 0.4])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_parameter_that_comes_late_to_fused_sgd_is_as_in_torch(torch: Any, dampening: float, decay: float) -> None:
    def trained(make: Any) -> list[Any]:
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
        optimizer = make(model)
        model[0].bias.requires_grad_(False)
        for step in range(6):
            if step == 3:
                model[0].bias.requires_grad_(True)
            optimizer.zero_grad()
            model(torch.linspace(-1, 1, 6).double().reshape(2, 3) + step).square().sum().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in model.parameters()]

    spec = ll.Spec(ll.SGD(0.01, momentum=0.9, dampening=dampening, weight_decay=decay, fused=True))
    ours = trained(lambda model: ll.compile(spec, model)[0])
    theirs = trained(
        lambda model: torch.optim.SGD(
            model.parameters(), 0.01, momentum=0.9, dampening=dampening, weight_decay=decay, foreach=False
        )
    )
    for mine, due in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, due, rtol=1e-14, atol=1e-16)
