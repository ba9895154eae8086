"""``ll.adopt``: what it reads trains as the hand-written recipe, to the bit, and what it cannot read it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from tests.support.adopted_recipes import SCHEDULERS, STEPS, by_hand, train
from tests.support.audited_nets import convolutional, perceptron
from tests.support.optimizer_cases import CASES, TORCH_ONLY

OF_TORCH = {name: case for name, case in CASES.items() if not isinstance(case, ll.LAMB | ll.LARS | ll.Lion)}
ONE_OF_EACH = {type(case).__name__: name for name, case in reversed(OF_TORCH.items())}


def round_trip(case: ll.Optimizer, scheduler: str | None) -> None:
    model, optimizer = by_hand(case)
    theirs = None if scheduler is None else SCHEDULERS[scheduler](optimizer, bool(case.first_momentum))
    spec = ll.adopt(optimizer, model, theirs)
    other, _ = by_hand(case)
    mine, own = ll.compile(spec, other)
    assert train(case, model, optimizer, theirs) == train(case, other, mine, own)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_optimizer_under_every_scheduler_trains_alike_to_the_bit(torch: Any, kind: str) -> None:
    if not hasattr(torch.optim, kind):
        pytest.skip(f"this torch has no {kind}")
    for scheduler in SCHEDULERS:
        round_trip(OF_TORCH[ONE_OF_EACH[kind]], scheduler)


@pytest.mark.parametrize("name", OF_TORCH)
def test_every_setting_of_an_optimizer_trains_alike_to_the_bit(torch: Any, name: str) -> None:
    round_trip(OF_TORCH[name], None)


def test_every_scheduler_and_optimizer_is_in_the_tests(torch: Any) -> None:
    from layered_lr_torch.adopt.schedules import _READERS

    _, optimizer = by_hand(ll.SGD(0.1, momentum=0.9))
    made = {type(make(optimizer, True)) for make in SCHEDULERS.values()}
    assert made == set(_READERS)
    assert {*ONE_OF_EACH, *TORCH_ONLY, "LAMB", "LARS", "Lion"} == set(OPTIMIZERS)


@pytest.mark.parametrize("scheduler", ["step", "cosine", "one_cycle", "sequence", "by_three_lambdas"])
def test_a_run_that_has_begun_goes_on_to_the_bit(torch: Any, scheduler: str) -> None:
    case = ll.AdamW(0.01, weight_decay=0.1)
    model, optimizer = by_hand(case)
    theirs = SCHEDULERS[scheduler](optimizer, True)
    train(case, model, optimizer, theirs, stop=4)
    spec = ll.adopt(optimizer, model, theirs)
    other, _ = by_hand(case)
    other.load_state_dict(model.state_dict())
    mine, own = ll.compile(spec, other)
    names = ["a", "b", "c", "d", "e"]
    ll.load_state(optimizer.state_dict(), other, mine, own, names=names, step=4)
    assert train(case, model, optimizer, theirs, first=4) == train(case, other, mine, own, first=4)


def test_a_plateau_that_has_reduced_is_refused(torch: Any) -> None:
    case = ll.SGD(0.1)
    model, optimizer = by_hand(case)
    theirs = SCHEDULERS["plateau"](optimizer, False)
    train(case, model, optimizer, theirs, stop=6)
    with pytest.raises(ll.SpecError, match="has read 6 metrics"):
        ll.adopt(optimizer, model, theirs)


def test_names_are_those_of_whole_modules(torch: Any) -> None:
    net = convolutional()
    groups = [
        {"params": net.stem.parameters(), "lr": 0.01},
        {"params": [*net.body[0].parameters(), net.body[1].weight], "lr": 0.02, "name": "half"},
        {"params": [net.body[1].bias, *net.head.parameters()], "weight_decay": 1e-4},
    ]
    spec = ll.adopt(torch.optim.SGD(groups, lr=0.1, momentum=0.9), net)
    assert [group.match for group in spec.groups] == ["stem", ("body.0", "body.1.weight"), ("body.1.bias", "head")]
    assert [group.label for group in spec.groups] == ["stem", "half", "group 2"]
    assert [group.lr for group in spec.groups] == [0.01, 0.02, None] and spec.optimizer.lr == 0.1
    plan = ll.plan(spec, model=net, total_steps=1)
    assert plan.rates(0) == [0.01, 0.02, 0.1]
    assert [group.optimizer.weight_decay for group in plan.groups] == [0.0, 0.0, 1e-4]
    assert ll.Spec.from_toml(spec.to_toml()) == spec


def test_odd_names_and_tied_tensors_stay_in_their_groups(torch: Any) -> None:
    net = torch.nn.ModuleDict({"a[1]": torch.nn.Linear(3, 3), "a1": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    net["b"].weight = net["a1"].weight
    groups = [{"params": [net["b"].bias], "lr": 0.3}, {"params": net["a1"].parameters(), "lr": 0.2}]
    groups.append({"params": net["a[1]"].parameters(), "lr": 0.1})
    plan = ll.plan(ll.adopt(torch.optim.SGD(groups, lr=1.0), net), model=net, total_steps=1)
    assert [group.parameters for group in plan.groups] == [
        ("b.bias",),
        ("a1.weight", "a1.bias"),
        ("a[1].weight", "a[1].bias"),
    ]
    assert plan.rates(0) == [0.3, 0.2, 0.1]


def test_one_group_needs_no_names(torch: Any) -> None:
    net = perceptron()
    net.body.requires_grad_(False)
    spec = ll.adopt(torch.optim.AdamW(net.head.parameters(), lr=torch.tensor(0.5)), net)
    assert spec == ll.Spec(ll.AdamW(0.5, foreach=False))


def test_cycles_in_proportion_become_lr_scale(torch: Any) -> None:
    net = perceptron()
    groups = [{"params": net.body.parameters()}, {"params": net.head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.01, 0.1], total_steps=20)
    spec = ll.adopt(optimizer, net, scheduler)
    assert [group.lr_scale for group in spec.groups] == [0.1, 1.0]
    assert spec.schedule == ll.OneCycleLR(0.1, 20) and spec.groups[0].schedule is None


def test_optimizers_that_only_torch_has(torch: Any) -> None:
    net = perceptron()
    spec = ll.adopt(torch.optim.LBFGS(net.parameters(), lr=0.5, history_size=7), net)
    assert spec.optimizer == ll.LBFGS(0.5, history_size=7, max_eval=25)
    sparse = torch.nn.Embedding(3, 2, sparse=True)
    assert ll.adopt(torch.optim.SparseAdam(sparse.parameters(), lr=0.5), sparse).optimizer == ll.SparseAdam(0.5)


def test_epochs(torch: Any) -> None:
    net = perceptron()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    parts = [torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=2), torch.optim.lr_scheduler.StepLR(optimizer, 3)]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [2])
    spec = ll.adopt(optimizer, net, scheduler, unit="epoch")
    assert spec.schedule is not None and spec.schedule.unit == "epoch"
    plan = ll.plan(spec, model=net, epochs=6, steps_per_epoch=10)
    theirs = []
    for _ in range(6):
        theirs += [optimizer.param_groups[0]["lr"]] * 10
        optimizer.step()
        scheduler.step()
    assert plan.table()[:, 0].tolist() == pytest.approx(theirs, rel=1e-12)


def test_a_lambda_cannot_be_saved_and_a_named_function_can(torch: Any) -> None:
    net = perceptron()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    named = ll.adopt(optimizer, net, SCHEDULERS["by_function"](optimizer, False))
    assert ll.Spec.from_toml(named.to_toml()) == named
    unnamed = ll.adopt(optimizer, net, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step))
    with pytest.raises(ll.SpecError, match="cannot be saved"):
        unnamed.to_toml()


MIXES: dict[str, tuple[Any, Any]] = {
    "SGD and AdamW": (
        lambda torch, weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda torch, biases: torch.optim.AdamW(
            [{"params": biases[:1]}, {"params": biases[1:], "lr": 0.02, "weight_decay": 0.0}], lr=0.01
        ),
    ),
    "Muon and Adam": (
        lambda torch, weights: torch.optim.Muon([{"params": [each]} for each in weights], lr=0.02),
        lambda torch, biases: torch.optim.Adam(biases, lr=0.01, betas=(0.8, 0.99)),
    ),
}


@pytest.mark.parametrize("schedulers", [(None, None), ("cosine", None), ("step", "sequence")])
@pytest.mark.parametrize("name", MIXES)
def test_several_optimizers_become_one_spec_that_trains_alike_to_the_bit(
    torch: Any, name: str, schedulers: tuple[str | None, str | None]
) -> None:
    if "Muon" in name and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    net = perceptron()
    other = copy.deepcopy(net)
    parameters = list(net.parameters())
    theirs = [
        make(torch, [each for each in parameters if (each.ndim > 1) is is_large])
        for make, is_large in zip(MIXES[name], (True, False), strict=True)
    ]
    steppers = [None if s is None else SCHEDULERS[s](one, True) for s, one in zip(schedulers, theirs, strict=True)]
    spec = ll.adopt(theirs, net, None if schedulers == (None, None) else steppers)
    assert {type(group.optimizer).__name__ for group in spec.groups if group.optimizer} <= {
        "SGD",
        "AdamW",
        "Muon",
        "Adam",
    }
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    mine, own = ll.compile(spec, other)
    for step in range(5):
        for model, optimizers, schedules in ((net, theirs, steppers), (other, [mine], [own])):
            model.zero_grad()
            model(torch.linspace(-1, step, 16).reshape(2, 8)).square().sum().backward()
            for each in (*optimizers, *filter(None, schedules)):
                each.step()
    pairs = zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_what_this_library_made_is_read_back(torch: Any) -> None:
    net = perceptron()
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.CosineDecay(warmup_steps=2))
    optimizer, scheduler = ll.compile(spec, net, total_steps=20)
    assert ll.adopt(optimizer, net, scheduler) == spec


def _of(torch: Any) -> tuple[Any, Any]:
    net = perceptron()
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def _set_by_hand(torch: Any) -> tuple[Any, ...]:
    net, optimizer = _of(torch)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    optimizer.param_groups[0]["lr"] = 0.07
    return optimizer, net, scheduler


def _without_its_scheduler(torch: Any) -> tuple[Any, ...]:
    net, optimizer = _of(torch)
    torch.optim.lr_scheduler.LinearLR(optimizer)
    return optimizer, net


def _own_class(torch: Any) -> tuple[Any, ...]:
    class Mine(torch.optim.lr_scheduler.StepLR): ...

    net, optimizer = _of(torch)
    return optimizer, net, Mine(optimizer, 3)


def _own_optimizer(torch: Any) -> tuple[Any, ...]:
    class SGD(torch.optim.SGD): ...

    net = perceptron()
    return SGD(net.parameters(), lr=0.1), net


def _scheduler_of_another(torch: Any) -> tuple[Any, ...]:
    net, optimizer = _of(torch)
    return optimizer, net, torch.optim.lr_scheduler.StepLR(_of(torch)[1], 3)


def _twice(net: Any, optimizer: Any) -> tuple[Any, ...]:
    return [optimizer, optimizer], net


def _only_heads(net: Any, torch: Any) -> tuple[Any, ...]:
    halves = [torch.optim.SGD([net.head.weight], lr=0.1), torch.optim.Adam([net.head.bias], lr=0.1)]
    return halves, net


REFUSED = {
    "no optimizer": (lambda torch: (3, perceptron()), "optimizer is a int"),
    "no model": (lambda torch: (_of(torch)[1], 3), "model is a int"),
    "a class": (lambda torch: (_of(torch)[1], torch.nn.Linear), r"Linear\(\.\.\.\)"),
    "the same optimizer twice": (lambda torch: _twice(*_of(torch)), "'body.weight' is in two of the optimizers"),
    "two that leave some out": (lambda torch: _only_heads(perceptron(), torch), "parameters .* are in no group"),
    "no optimizers": (lambda torch: ([], perceptron()), "an empty list"),
    "one scheduler for two": (lambda torch: ([_of(torch)[1]] * 2, perceptron(), 1), "is one, for 2 optimizers"),
    "three schedulers for two": (lambda torch: ([_of(torch)[1]] * 2, perceptron(), [1] * 3), "a list of 3, for 2"),
    "two schedulers": (lambda torch: (*_of(torch)[::-1], [1, 2]), "a list of 2, for one optimizer; join them"),
    "another model": (lambda torch: (_of(torch)[1], perceptron()), "that the model has not"),
    "a part": (lambda torch: (torch.optim.SGD((n := perceptron()).head.parameters()), n), "are in no group, such as"),
    "a function": (lambda torch: (*_of(torch)[::-1], lambda optimizer, step: None), "scheduler is a function"),
    "set by hand": (_set_by_hand, "is at the rate 0.07, and its schedule has 0.1 at step 0"),
    "without its scheduler": (_without_its_scheduler, "a scheduler has set the rate of group 0 from 0.1"),
    "an own scheduler": (_own_class, "scheduler is a Mine, whose settings cannot be read"),
    "an own optimizer": (_own_optimizer, "must be one of"),
    "of another": (_scheduler_of_another, "scheduler belongs to another optimizer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(torch: Any, name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ll.SpecError, match=message):
        ll.adopt(*make(torch))


def test_a_unit_is_a_step_or_an_epoch(torch: Any) -> None:
    net, optimizer = _of(torch)
    with pytest.raises(ll.SpecError, match="unit='batch': must be 'step' or 'epoch'"):
        ll.adopt(optimizer, net, unit="batch")  # type: ignore[arg-type]


def test_adopting_touches_nothing(torch: Any) -> None:
    case = ll.Adam(0.01)
    model, optimizer = by_hand(case)
    theirs = SCHEDULERS["sequence"](optimizer, True)
    plain, plain_optimizer = by_hand(case)
    plain_scheduler = SCHEDULERS["sequence"](plain_optimizer, True)
    train(case, model, optimizer, theirs, stop=2), train(case, plain, plain_optimizer, plain_scheduler, stop=2)
    ll.adopt(optimizer, model, theirs)
    ends = (
        train(case, model, optimizer, theirs, 2, STEPS),
        train(case, plain, plain_optimizer, plain_scheduler, 2, STEPS),
    )
    assert ends[0] == ends[1]


def test_groups_that_share_one_tensor_as_their_rate_are_refused(torch: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = [{"params": part.parameters()} for part in model]
    optimizer = torch.optim.Adam(groups, lr=torch.tensor(0.1), foreach=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0, lambda step: 0.5**step])
    with pytest.raises(ll.SpecError, match="share one tensor as their lr"):
        ll.adopt(optimizer, model, scheduler)
    optimizer = torch.optim.Adam([{"params": part.parameters()} for part in model], lr=torch.tensor(0.1), foreach=False)
    spec = ll.adopt(optimizer, model, torch.optim.lr_scheduler.StepLR(optimizer, 2))
    assert list(ll.resolve(spec, model, total_steps=4).lr(2).values()) == pytest.approx([0.01] * 2)
