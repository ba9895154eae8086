"""A spec for an optimizer that somebody else makes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import unit_gradients

GROUPS = [ll.Group("0", lr_scale=0.5), ll.Group("none", optional=True), ll.Group("3")]
TOTAL = 8
SPECS = {
    "plain": ll.Spec(ll.AdamW(0.01), GROUPS, ll.CosineDecay(warmup_steps=2), no_weight_decay="1d"),
    "clipped": ll.Spec(ll.AdamW(0.01), GROUPS, ll.OneCycleLR(0.02), clip_grad_norm=0.1),
    "phases": ll.Spec(
        ll.AdamW(0.01, weight_decay=0.0), GROUPS, ll.CosineDecay(), no_weight_decay="1d",
        phases=[ll.Phase("3 steps", trained="3"), ll.Phase(weight_decay=0.1, clip_grad_value=0.1)],
    ),
}  # fmt: skip


def make_model(torch: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def train(torch: Any, model: Any, optimizer: Any, scheduler: Any) -> list[list[float]]:
    rates = []
    for step in range(TOTAL):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).sum().backward()
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("is_own_class", [False, True])
def test_an_optimizer_of_the_user_trains_as_that_of_compile(torch: Any, name: str, is_own_class: bool) -> None:
    class Own(torch.optim.AdamW):  # type: ignore[misc, name-defined]
        def __init__(self, params: Any, a_size: int) -> None:  # cannot be made as torch's
            super().__init__(params, lr=1.0)

    spec = SPECS[name]
    whole, model = make_model(torch), make_model(torch)
    train(torch, whole, *ll.compile(spec, whole, TOTAL))
    groups = ll.param_groups(spec, model)
    assert all(len(group["params"]) == len(group["param_names"]) for group in groups)
    optimizer = Own(groups, 3) if is_own_class else torch.optim.AdamW(groups)
    scheduler = ll.scheduler(spec, optimizer, model, total_steps=TOTAL)
    rates = train(torch, model, optimizer, scheduler)
    plan = ll.resolve(spec, make_model(torch), TOTAL)
    columns = [[group.name for group in plan.groups].index(group["name"].split(" (")[0]) for group in groups]
    np.testing.assert_array_equal(rates, plan.table()[:, columns])
    assert scheduler.total_steps == TOTAL
    assert scheduler.plan == plan
    # torch's own choice of kernels rounds otherwise than the fused ones of compile
    torch.testing.assert_close(whole.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-6)


def test_names_in_the_optimizer_are_enough(torch: Any) -> None:
    model = make_model(torch)
    optimizer = torch.optim.SGD(ll.param_groups(SPECS["plain"], model), lr=1.0)
    scheduler = ll.scheduler(SPECS["plain"], optimizer, total_steps=TOTAL)
    assert scheduler.get_last_lr() == [0.0] * len(optimizer.param_groups)  # a warm-up begins at 0
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.005, 0.01}


@pytest.mark.parametrize("case", ["no names", "phases", "several groups", "another model", "no optimizer"])
def test_what_does_not_go_together_is_refused(torch: Any, case: str) -> None:
    model = make_model(torch)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    named = torch.optim.SGD(ll.param_groups(SPECS["phases"], model), lr=0.1)
    calls = {
        "no names": (lambda: ll.scheduler(SPECS["plain"], plain), "has no names of its parameters. Give model="),
        "phases": (lambda: ll.scheduler(SPECS["phases"], named), "needs the model"),
        "several groups": (lambda: ll.scheduler(SPECS["clipped"], plain, model, TOTAL), "is in several groups"),
        "another model": (
            lambda: ll.scheduler(SPECS["clipped"], plain, make_model(torch), TOTAL), "are not the model's"),
        "no optimizer": (lambda: ll.scheduler(SPECS["clipped"], model, model, TOTAL), "optimizer is a Sequential"),
    }  # fmt: skip
    with pytest.raises(ll.SpecError, match=calls[case][1]):
        calls[case][0]()


def test_the_end_holds_and_says_so_once(torch: Any) -> None:
    model = make_model(torch)
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1), schedule=ll.CosineAnnealingLR(T_max=4)), model, 4)
    optimizer.step()
    for _ in range(4):
        scheduler.step()
    end = scheduler.get_last_lr()
    with pytest.warns(UserWarning, match=r"more than total_steps=4 times; .* accelerate"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            scheduler.step()
    assert scheduler.get_last_lr() == end


@pytest.mark.parametrize("kind", [float, np.float32, "tensor", dict])
def test_a_number_with_a_fraction_is_a_metric(torch: Any, kind: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau(patience=0, factor=0.5, metric="loss"))
    optimizer, scheduler = ll.compile(spec, make_model(torch))
    optimizer.step()
    scheduler.step()
    given = torch.tensor(2.0) if kind == "tensor" else {"loss": 2.0} if kind is dict else kind(2.0)
    for _ in range(2):
        scheduler.step(given)
    assert scheduler.get_last_lr() == [0.05]
    assert scheduler.last_epoch == 1
    with pytest.raises(ll.SpecError, match="epoch or a metric; say which"):
        scheduler.step(2)


def test_a_plateau_without_a_metric_says_so_once(torch: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau())
    for tells in (False, True):
        optimizer, scheduler = ll.compile(spec, make_model(torch), steps_per_epoch=3)
        optimizer.step()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(12):
                scheduler.step()
                if tells and step % 3 == 2:
                    scheduler.step(metrics=1.0)
        assert len(said) == (0 if tells else 1)
        assert all("has not been given a metric" in str(one.message) for one in said)


def test_a_step_once_an_epoch_says_so_once(torch: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.StepLR(1, unit="epoch"))
    optimizer, scheduler = ll.compile(spec, make_model(torch), steps_per_epoch=4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(4):
            for _ in range(4):
                optimizer.step()
            scheduler.step()
    assert [str(one.message)[:49] for one in said] == ["scheduler.step() comes once in 4 updates. It coun"]


def test_timms_calls(torch: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("3", schedule=ll.ReduceLROnPlateau(patience=0))], ll.CosineDecay())
    optimizer, scheduler = ll.compile(spec, make_model(torch), TOTAL)
    optimizer.step()
    scheduler.step_update(5, metric=1.0)
    scheduler.step(1, 2.0)
    scheduler.step(2, 2.0)
    assert scheduler.last_epoch == 5
    assert scheduler.get_last_lr() == [pytest.approx(0.01), scheduler.plan.rates(5)[1]]


def test_a_copy_of_the_whole_loop_goes_on_alike(torch: Any) -> None:
    model = make_model(torch)
    optimizer, scheduler = ll.compile(SPECS["phases"], model, 2 * TOTAL)
    loop = (model, optimizer, scheduler)
    train(torch, *loop)
    other = copy.deepcopy(loop)
    assert train(torch, *other) == train(torch, *loop)
    torch.testing.assert_close(other[0].state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("way", ["DataParallel", "compile", "both"])
def test_a_state_loads_whatever_wraps_the_model(torch: Any, tmp_path: Any, way: str) -> None:
    def wrap(model: Any) -> Any:
        for wrapper in [] if way == "compile" else [torch.nn.DataParallel]:
            model = wrapper(model)
        return torch.compile(model, backend="eager") if way != "DataParallel" else model

    def begin(wrapped: bool) -> Any:
        model = wrap(make_model(torch)) if wrapped else make_model(torch)
        return (model, *ll.compile(SPECS["plain"], model, 2 * TOTAL))

    for saved, loaded in ((False, True), (True, False)):
        old, new = begin(saved), begin(loaded)
        train(torch, *old)
        ll.save_state(tmp_path / "state", *old)
        ll.load_state(tmp_path / "state", *new)
        train(torch, *old)
        train(torch, *new)
        for one, other in zip(old[0].parameters(), new[0].parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("own", [True, False], ids=["own optimizer", "compile"])
@pytest.mark.parametrize("later", [0.5, None], ids=str)
def test_a_second_scheduler_clips_as_its_own_spec_says(torch: Any, own: bool, later: float | None) -> None:
    """Trainers make a new scheduler for each call of fit: the clipping of the one before would stay beside it."""

    def spec(limit: float | None) -> ll.Spec:
        return ll.Spec(ll.SGD(1.0), schedule=ll.CosineDecay(), clip_grad_norm=limit)

    model = torch.nn.Linear(3, 1, bias=False)
    first = spec(0.1)
    optimizer = torch.optim.SGD(ll.param_groups(first, model)) if own else ll.compile(first, model, total_steps=2)[0]
    ll.scheduler(first, optimizer, torch.nn.Sequential(model), total_steps=2)  # other names, as a wrapper gives them
    ll.scheduler(spec(later), optimizer, model, total_steps=2)
    optimizer.zero_grad()
    (model.weight * 7.0).sum().backward()
    twin = torch.nn.Linear(3, 1, bias=False)
    twin.weight.grad = model.weight.grad.clone()
    if later is not None:
        torch.nn.utils.clip_grad_norm_(twin.parameters(), later)
    before = model.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.weight, before - twin.weight.grad)


ONEFLOW_SPECS = {
    "plain": ll.Spec(
        ll.SGD(0.01, momentum=0.9, weight_decay=0.1), GROUPS, ll.CosineDecay(warmup_steps=2), no_weight_decay="1d"
    ),
    "clipped": ll.Spec(ll.SGD(0.01, momentum=0.8), GROUPS, ll.OneCycleLR(0.02), clip_grad_norm=0.1),
    "phases": ll.Spec(
        ll.SGD(0.01, momentum=0.9), GROUPS, ll.CosineDecay(), no_weight_decay="1d",
        phases=[ll.Phase("3 steps", trained="3"), ll.Phase(weight_decay=0.1, clip_grad_value=0.1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ONEFLOW_SPECS))
def test_an_optimizer_of_oneflow_trains_as_one_of_torch(torch: Any, oneflow: Any, name: str) -> None:
    """Weights per update, in float64; the rates are the plan's."""
    spec = ONEFLOW_SPECS[name]

    def made(framework: Any) -> tuple[Any, Any, Any]:
        layers = framework.nn
        model = layers.Sequential(layers.Linear(4, 8), layers.LayerNorm(8), layers.ReLU(), layers.Linear(8, 2))
        model = model.to(framework.float64)
        rng = np.random.default_rng(0)
        with framework.no_grad():
            for parameter in model.parameters():
                parameter.copy_(framework.tensor(rng.normal(size=tuple(parameter.shape)) / 2))
        optimizer = framework.optim.SGD(ll.param_groups(spec, model))
        return model, optimizer, ll.scheduler(spec, optimizer, model, total_steps=TOTAL)

    loops = [(torch, *made(torch)), (oneflow, *made(oneflow))]
    for step in range(TOTAL):
        images = np.random.default_rng(step).normal(size=(8, 4))
        for framework, model, optimizer, scheduler in loops:
            optimizer.zero_grad()
            model(framework.tensor(images)).pow(2).sum().backward()
            assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr()
            optimizer.step()
            scheduler.step()
        ours, theirs = ([parameter.detach().numpy() for parameter in model.parameters()] for _, model, _, _ in loops)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)  # OneFlow's SGD has rate and decay in float32
        assert loops[0][3].get_last_lr() == loops[1][3].get_last_lr()


def test_what_an_optimizer_of_oneflow_cannot_do_is_refused(oneflow: Any) -> None:
    model = unit_gradients(oneflow, ["p0", "p1"])
    phased = ll.Spec(ll.Adam(0.1), phases=[ll.Phase(1, frozen="p0"), ll.Phase()])
    adam = oneflow.optim.Adam(ll.param_groups(ll.Spec(ll.Adam(0.1)), model))
    with pytest.raises(
        ll.Unsupported, match=r"oneflow\.optim\.Adam has one count of updates for all .* Use ll\.compile"
    ):
        ll.scheduler(phased, adam, model, total_steps=4)
    scheduler = ll.scheduler(ll.Spec(ll.Adam(0.1), schedule=ll.StepLR(1)), adam)  # by the names in param_groups
    scheduler.step()
    assert scheduler.get_last_lr() == [pytest.approx(0.01)] and scheduler.plan.total_steps is None
    with pytest.raises(ll.Unsupported, match="what Adam keeps is not known here"):
        ll.save_state("never-written", model, adam, scheduler)
    with pytest.raises(ll.Unsupported, match=r"call layered_lr\.attach"):
        float(adam.param_groups[0]["lr_scale"])  # as a Graph reads it when it is compiled
    own, _ = ll.compile(ll.Spec(ll.AdamW(0.1)), model)
    with pytest.raises(ll.SpecError, match=r"this optimizer is from ll\.compile"):
        ll.scheduler(ll.Spec(ll.AdamW(0.1)), own, model)
    with pytest.raises(ll.SpecError, match="must be an optimizer of torch or OneFlow"):
        ll.scheduler(ll.Spec(ll.AdamW(0.1)), model, None)
