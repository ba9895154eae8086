"""What ``ll.compile`` hands out: the framework's own optimizer, and a scheduler that goes on where it stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import arrays, fill, largest_difference, mlp, mlp_weights, weights
from tests.support.optimizer_states import saved

SPEC = ll.Spec(
    optimizer=ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("1", lr_scale=0.5, weight_decay=0.01)],
    schedule=ll.StepLR(step_size=3, gamma=0.5),
)
RATES = [[0.05, 0.1]] * 3 + [[0.025, 0.05]] * 3 + [[0.0125, 0.025]]


def model_of(framework: Any) -> Any:
    return fill(mlp(framework)(), framework, mlp_weights())


def rounding(framework: Any) -> float:
    """Of rates between plan and optimizer: none in torch; OneFlow's may be what its Graph makes of them in float32."""
    return 1e-15 if framework.__name__ == "torch" else 1e-6


def step(framework: Any, model: Any, optimizer: Any, scheduler: Any) -> None:
    """One update with the same data every time."""
    x, y, _, _ = arrays()
    optimizer.zero_grad(set_to_none=True)
    framework.nn.functional.cross_entropy(model(framework.tensor(x)), framework.tensor(y)).backward()
    optimizer.step()
    scheduler.step()


def test_the_optimizer_is_the_frameworks_own(framework: Any) -> None:
    optimizer, _ = ll.compile(SPEC, model_of(framework))
    assert isinstance(optimizer, framework.optim.Optimizer)
    assert type(optimizer) is framework.optim.SGD


def test_there_is_one_param_group_per_group(framework: Any) -> None:
    model = model_of(framework)
    optimizer, _ = ll.compile(SPEC, model)
    one, rest = optimizer.param_groups
    assert [one["name"], rest["name"]] == ["1", "rest"]
    np.testing.assert_allclose([one["lr"], rest["lr"]], [0.05, 0.1], rtol=rounding(framework))
    assert [one["weight_decay"], rest["weight_decay"]] == [0.01, 0.0]
    assert [one["momentum"], rest["momentum"]] == [0.9, 0.9]
    members = [group["params"] if framework.__name__ == "torch" else group.parameters for group in (one, rest)]
    objects = dict(model.named_parameters())
    assert [[id(p) for p in group] for group in members] == [
        [id(objects["1.weight"]), id(objects["1.bias"])],
        [id(objects["3.weight"]), id(objects["3.bias"])],
    ]


def test_the_scheduler_says_the_rates(framework: Any) -> None:
    model = model_of(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    seen = []
    for _ in RATES:
        seen.append(list(scheduler.get_last_lr()))
        assert [group["lr"] for group in optimizer.param_groups] == seen[-1]
        step(framework, model, optimizer, scheduler)
    np.testing.assert_allclose(seen, RATES, rtol=rounding(framework))


def test_the_schedulers_state_is_small_and_plain(framework: Any) -> None:
    model = model_of(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    for _ in range(4):
        step(framework, model, optimizer, scheduler)
    state = scheduler.state_dict()
    assert all(isinstance(value, int | float | list) for value in state.values())
    assert 4 in state.values()
    assert len(repr(state)) < 200
    step(framework, model, optimizer, scheduler)
    assert 4 in state.values(), "the state is a copy, not a view of the scheduler"


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_a_resumed_run_is_bitwise_the_same(framework: Any, stop: int, scheduler_first: bool) -> None:
    model = model_of(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    for at in range(8):
        if at == stop:
            states = [saved(framework, thing.state_dict()) for thing in (optimizer, scheduler)]
            start = weights(model)
        step(framework, model, optimizer, scheduler)

    resumed = fill(mlp(framework)(), framework, start)
    optimizer, scheduler = ll.compile(SPEC, resumed)
    pairs = list(zip((optimizer, scheduler), states, strict=True))
    for thing, state in pairs[:: -1 if scheduler_first else 1]:
        thing.load_state_dict(state)
    plan = ll.resolve(SPEC, resumed)
    for at in range(stop, 8):
        planned = list(plan.lr(at).values())
        np.testing.assert_allclose(scheduler.get_last_lr(), planned, rtol=rounding(framework))
        np.testing.assert_allclose([g["lr"] for g in optimizer.param_groups], planned, rtol=rounding(framework))
        step(framework, resumed, optimizer, scheduler)
    assert largest_difference(weights(resumed), weights(model)) == 0


def test_a_loaded_state_takes_the_rates_of_the_new_plan(framework: Any) -> None:
    """A saved count does not bring back the rates of the spec it was saved under."""
    model = model_of(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    for _ in range(3):
        step(framework, model, optimizer, scheduler)
    other = ll.Spec(optimizer=ll.SGD(lr=0.7), groups=[ll.Group("1", lr_scale=0.1)], schedule=SPEC.schedule)
    optimizer, changed = ll.compile(other, model)
    changed.load_state_dict(scheduler.state_dict())
    np.testing.assert_allclose(changed.get_last_lr(), [0.035, 0.35], rtol=rounding(framework))
    np.testing.assert_allclose(
        [group["lr"] for group in optimizer.param_groups], [0.035, 0.35], rtol=rounding(framework)
    )


def test_epochs_are_counted_in_updates(framework: Any) -> None:
    spec = ll.Spec(optimizer=ll.SGD(lr=1.0), schedule=ll.StepLR(step_size=1, gamma=0.5, unit="epoch"))
    model = model_of(framework)
    optimizer, scheduler = ll.compile(spec, model, steps_per_epoch=2)
    seen = []
    for _ in range(5):
        seen += scheduler.get_last_lr()
        step(framework, model, optimizer, scheduler)
    assert seen == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_epochs_without_their_length_are_an_error(framework: Any) -> None:
    spec = ll.Spec(optimizer=ll.SGD(), schedule=ll.StepLR(step_size=1, unit="epoch"))
    with pytest.raises(ll.SpecError, match="steps_per_epoch"):
        ll.compile(spec, model_of(framework))


def test_torchs_own_step_lr_trains_the_same(torch: Any) -> None:
    """The oracle: torch's optimizer, param groups and StepLR by hand. Bitwise, as 0.5 decays without rounding."""
    ours, theirs = model_of(torch), model_of(torch)
    optimizer, scheduler = ll.compile(SPEC, ours)
    groups = [
        {"params": list(theirs[1].parameters()), "lr": 0.05, "weight_decay": 0.01},
        {"params": list(theirs[3].parameters())},
    ]
    by_hand = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    steps = torch.optim.lr_scheduler.StepLR(by_hand, 3, 0.5)
    for _ in range(8):
        step(torch, ours, optimizer, scheduler)
        step(torch, theirs, by_hand, steps)
        assert list(scheduler.get_last_lr()) == steps.get_last_lr()
    assert largest_difference(weights(ours), weights(theirs)) == 0


@pytest.mark.parametrize("model", [None, "mobilenet_v2", object(), [1, 2]])
def test_what_is_no_module_is_an_error(backend: Backend, model: Any) -> None:
    with pytest.raises(ll.SpecError, match="model"):
        ll.compile(SPEC, model)


def test_a_class_is_no_module(framework: Any) -> None:
    with pytest.raises(ll.SpecError, match="the class Linear"):
        ll.compile(SPEC, framework.nn.Linear)


def test_a_group_without_parameters_is_an_error(framework: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"group 'heads'.*matches none"):
        ll.compile(ll.Spec(optimizer=ll.SGD(), groups=[ll.Group("heads")]), model_of(framework))


TOO_LARGE = {
    "clip_grad_value": ll.Spec(ll.SGD(0.1), clip_grad_value=1e39),
    "clip_grad_value in a phase": ll.Spec(ll.SGD(0.1), phases=[ll.Phase(2), ll.Phase(clip_grad_value=1e39)]),
    "weight_decay": ll.Spec(ll.SGD(0.1), [ll.Group("*bias", weight_decay=1e39)]),
    "weight_decay in a phase": ll.Spec(ll.SGD(0.1), phases=[ll.Phase(2), ll.Phase(weight_decay=1e39)]),
    "eps, one of two": ll.Spec(ll.Adafactor(0.1, eps=(1e39, 1e-3))),
    "step_sizes": ll.Spec(ll.Rprop(0.1, step_sizes=(1e-6, 1e39))),
    "alpha": ll.Spec(ll.ASGD(0.1, alpha=1e39)),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_numbers_that_float32_cannot_hold_are_refused_before_the_first_update(framework: Any, case: str) -> None:
    spec, model = TOO_LARGE[case], framework.nn.Linear(3, 2)
    asked = [lambda: ll.compile(spec, model), lambda: ll.param_groups(spec, model)]
    plain = framework.optim.SGD(model.parameters(), lr=0.1)
    for ask in [*asked, lambda: ll.scheduler(spec, plain, model)]:
        if ask is asked[1] and ("phase" in case or "clip" in case):  # of which param groups know nothing
            continue
        with pytest.raises(
            ll.SpecError, match=rf"{case.split()[0].rstrip(',')}=1e\+39 is more than the weights' float32"
        ):
            ask()
    ll.compile(spec, model.double())  # float64 can
