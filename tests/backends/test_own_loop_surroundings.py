"""What other tools do to a loop of one's own on torch: copies, torch.func, losses that call no module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import layered_lr as ll

HEAD_LATE = (ll.Phase(2, frozen="a"), ll.Phase())
GROUPS = [ll.Group("a"), ll.Group("b")]


@pytest.mark.parametrize("kind", [ll.Lion, ll.LAMB, ll.LARS, ll.Adafactor])
def test_a_loaded_or_copied_optimizer_of_many_groups_goes_on(torch: Any, kind: Any) -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(4)])
    groups = [ll.Group(str(index), lr=0.01 * (index + 1)) for index in range(4)]
    optimizer, _ = ll.compile(ll.Spec(kind(0.01), groups), model)

    def update(model: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()

    update(model, optimizer)
    same_model, same = copy.deepcopy((model, optimizer))
    optimizer.load_state_dict(optimizer.state_dict())
    update(model, optimizer)
    update(same_model, same)
    for one, other in zip(model.parameters(), same_model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings(
    "ignore:Seems like .optimizer.step... has been overridden"
)  # as torch says of its own copies
@pytest.mark.parametrize("phases", [(), (ll.Phase(2), ll.Phase())], ids=["plain", "phases"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda loop: pickle.loads(pickle.dumps(loop))])
def test_a_copy_of_the_users_own_optimizer_clips_too(torch: Any, phases: Any, duplicate: Callable[[Any], Any]) -> None:
    spec = ll.Spec(ll.SGD(1.0), clip_grad_norm=1e-3, phases=phases)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(ll.param_groups(spec, model))
    loop = (model, optimizer, ll.scheduler(spec, optimizer, model))
    for _ in range(2):  # a copy of a copy too
        model, optimizer, scheduler = loop = duplicate(loop)
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
        assert (model.weight.detach() - before).norm().item() == pytest.approx(1e-3, rel=0.2)


FIRST: dict[str, Callable[[Any, Any, Any], Any]] = {
    "an average": lambda torch, model, x: torch.func.functional_call(
        model, {name: tensor.detach().clone() for name, tensor in model.named_parameters()}, (x,)
    ),
    "grad": lambda torch, model, x: torch.func.grad(lambda given: torch.func.functional_call(model, given, (x,)).sum())(
        dict(model.named_parameters())
    ),
    "jacrev": lambda torch, model, x: torch.func.jacrev(lambda given: model(given))(x[0]),
    "vmap": lambda torch, model, x: torch.func.vmap(model)(x),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_first_pass_by_torch_func_leaves_the_freezing_to_the_next(torch: Any, name: str) -> None:
    spec = ll.Spec(ll.AdamW(0.1), GROUPS, phases=HEAD_LATE, clip_grad_norm=0.1)
    ends = []
    for is_disturbed in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential()
        model.add_module("a", torch.nn.Linear(3, 3))
        model.add_module("b", torch.nn.Linear(3, 1))
        optimizer, scheduler = ll.compile(spec, model)
        x = torch.ones(2, 3)
        if is_disturbed:
            FIRST[name](torch, model, x)
        for step in range(4):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
            assert model.a.weight.requires_grad is (step >= 2)
            scheduler.step()
        assert float(optimizer.state[model.a.weight]["step"]) == 2
        ends.append(model.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def bare(torch: Any) -> Any:
    """A model that is nothing but parameters."""
    model = torch.nn.Module()
    model.a = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    model.b = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    return model


def test_frozen_gradients_are_not_clipped_with_where_no_module_is_called(torch: Any) -> None:
    model = bare(torch)
    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.1), GROUPS, phases=HEAD_LATE, clip_grad_norm=1.0), model)
    (10 * model.a + 2 * model.b).sum().backward()
    optimizer.step()
    assert model.b.item() == pytest.approx(0.9, abs=1e-6) and model.a.item() == 3.0


def test_an_update_at_rate_0_freezes_where_no_module_is_called(torch: Any) -> None:
    model, by_hand = bare(torch), bare(torch)
    spec = ll.Spec(ll.AdamW(0.1), GROUPS, ll.CosineDecay(warmup_steps=2), phases=HEAD_LATE)
    optimizer, scheduler = ll.compile(spec, model, total_steps=6)
    other = torch.optim.AdamW([by_hand.a], lr=0.1)
    for step in range(6):
        rate = scheduler.get_last_lr()[0]
        optimizer.zero_grad()
        (10 * model.a**2 + model.b**2).sum().backward()
        optimizer.step()
        scheduler.step()
        if step >= 2:
            other.param_groups[0]["lr"] = rate
            other.zero_grad()
            (10 * by_hand.a**2).sum().backward()
            other.step()
        assert model.a.item() == pytest.approx(by_hand.a.item(), rel=1e-12)


def test_a_metric_for_schedules_of_two_units_has_to_say_which_it_is(framework: Any) -> None:
    plateaus = [
        ll.Group("0", schedule=ll.ReduceLROnPlateau(patience=1, factor=0.5, unit="step")),
        ll.Group("1", schedule=ll.ReduceLROnPlateau(patience=1, factor=0.5)),
    ]
    model = framework.nn.Sequential(framework.nn.Linear(2, 2), framework.nn.Linear(2, 2))
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1), plateaus), model, steps_per_epoch=4)
    with pytest.raises(ll.SpecError, match=r"each step in group '0', and of each epoch in group '1'.*observe\(metric"):
        scheduler.step(metrics=1.0)
    with pytest.raises(ll.SpecError, match="unit='epochs': must be 'step' or 'epoch'"):
        scheduler.observe(1.0, "epochs")
    for step in range(8):
        optimizer.step()
        scheduler.step()
        scheduler.observe(1.0, "step")
        if step % 4 == 3:
            scheduler.observe(1.0, "epoch")
    assert scheduler.get_last_lr() == pytest.approx([0.0125, 0.1])


@pytest.mark.parametrize(
    "state", [{}, None, [], 3, {"last_epoch": "3", "last_step": "3"}, {"last_epoch": -1, "last_step": -1}]
)
def test_what_is_no_schedulers_state_is_refused(framework: Any, state: Any) -> None:
    _, scheduler = ll.compile(ll.Spec(ll.SGD(0.1)), framework.nn.Linear(2, 2))
    with pytest.raises(ll.CheckpointError, match=r"Give what scheduler\.state_dict\(\) has returned"):
        scheduler.load_state_dict(state)


def test_a_metric_that_is_refused_changes_no_group(framework: Any) -> None:
    plateaus = [
        ll.Group("0", schedule=ll.ReduceLROnPlateau(patience=0)),
        ll.Group("1", schedule=ll.ReduceLROnPlateau(metric="accuracy", patience=0)),
    ]
    model = framework.nn.Sequential(framework.nn.Linear(2, 2), framework.nn.Linear(2, 2))
    _, scheduler = ll.compile(ll.Spec(ll.SGD(0.1), plateaus), model)
    for metrics in ({"loss": 1.0}, {"loss": 1.0, "accuracy": "high"}) * 2:
        with pytest.raises(ll.SpecError, match=r"watches the metric 'accuracy'|must be a number"):
            scheduler.step(metrics=metrics)
    assert all(state["seen"] == 0 for state in scheduler.state_dict()["reactions"].values())
