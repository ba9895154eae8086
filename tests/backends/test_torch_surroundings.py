"""What trainers do with an optimizer, its scheduler and a model that go through phases."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

import layered_lr as ll

GROUPS = [ll.Group("0", lr_scale=0.5), ll.Group("1"), ll.Group("3")]
PHASES = [ll.Phase("3 steps", trained="3"), ll.Phase()]
TOTAL = 8


def make_model(torch: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def update(torch: Any, model: Any, optimizer: Any, step: int, closure: bool = False) -> None:
    torch.manual_seed(100 + step)
    images, labels = torch.randn(8, 4), torch.randint(2, (8,))

    def evaluate() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    if closure:
        assert optimizer.step(evaluate) > 0
    else:
        evaluate()
        optimizer.step()


def train(torch: Any, model: Any, optimizer: Any, scheduler: Any, steps: range, closure: bool = False) -> None:
    for step in steps:
        update(torch, model, optimizer, step, closure)
        scheduler.step()


def assert_same(one: Any, other: Any) -> None:
    for name, tensor in one.state_dict().items():
        assert (tensor == other.state_dict()[name]).all(), name


@pytest.mark.parametrize("when", ["before the first forward pass", "in the frozen phase"])
@pytest.mark.parametrize("way", ["AveragedModel", "deepcopy", "torch.save"])
def test_a_copy_of_the_model_is_free(torch: Any, way: str, when: str) -> None:
    """The original's batch normalisation is held still; a copy's is not."""
    model = make_model(torch)
    loop = ll.compile(ll.Spec(ll.SGD(0.1), GROUPS, phases=PHASES), model, TOTAL)
    if when == "in the frozen phase":
        train(torch, model, *loop, range(1))
    if way == "AveragedModel":
        other = torch.optim.swa_utils.AveragedModel(model).module
    elif way == "deepcopy":
        other = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    other.train()
    for _ in range(2):
        other(torch.randn(8, 4))
    assert other[1].running_mean.abs().max() > 0
    assert not any(module._forward_pre_hooks for module in other.modules())
    train(torch, model, *loop, range(1, 2))
    assert model[1].running_mean.abs().max() == 0


@pytest.mark.parametrize("way", ["deepcopy", "torch.save"])
@pytest.mark.parametrize(
    "spec",
    [
        ll.Spec(ll.AdamW(0.1), GROUPS, clip_grad_norm=0.1),
        ll.Spec(ll.SGD(0.1, momentum=0.9), clip_grad_value=0.01),
        ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, clip_grad_norm=0.1, phases=[ll.Phase("1 steps", trained="3.bias")]),
    ],
    ids=["norm", "value", "late parameters"],
)
def test_a_copy_of_the_optimizer_alone_does_what_the_original_does(torch: Any, spec: ll.Spec, way: str) -> None:
    model = make_model(torch)
    optimizer, scheduler = ll.compile(spec, model, TOTAL)
    train(torch, model, optimizer, scheduler, range(2))
    if way == "deepcopy":
        other_model, other = copy.deepcopy((model, optimizer))
    else:
        file = io.BytesIO()
        torch.save((model, optimizer), file)
        file.seek(0)
        other_model, other = torch.load(file, weights_only=False)
    assert type(other) is type(optimizer)
    for step in (2, 3):
        if spec.phases:
            for both in (model, other_model):
                for parameter in both.parameters():
                    parameter.requires_grad_(True)
        update(torch, model, optimizer, step)
        update(torch, other_model, other, step)
    assert_same(model, other_model)


@pytest.mark.parametrize("momentum", [{"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}], ids=str)
@pytest.mark.parametrize("many", [False, True])
def test_closures_while_a_part_of_a_group_thaws(torch: Any, momentum: Any, many: bool) -> None:
    groups = [ll.Group(str(index), lr_scale=0.5 + index) for index in (0, 1, 3)] if many else []
    phases = [ll.Phase("2 steps", frozen="0.weight"), ll.Phase("4 steps", frozen="3.bias"), ll.Phase()]
    models = []
    for closure, fused in ((False, False), (False, None), (True, None), (True, False)):
        model = make_model(torch)
        spec = ll.Spec(ll.SGD(0.1, fused=fused, **momentum), groups, phases=phases)
        train(torch, model, *ll.compile(spec, model, TOTAL), range(TOTAL), closure)
        models.append(model)
    for other in models[1:]:
        # fused and plain kernels round differently in float32
        torch.testing.assert_close(models[0].state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)
    assert_same(models[1], models[2])


def test_a_part_of_a_group_thaws_under_a_grad_scaler(torch: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), phases=[ll.Phase("2 steps", frozen="0.weight"), ll.Phase()])
    models = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=256.0)):  # a power of 2 changes no bit
        model = make_model(torch)
        optimizer, scheduler = ll.compile(spec, model, TOTAL)
        for _ in range(TOTAL):
            optimizer.zero_grad()
            loss = model(torch.ones(8, 4) * torch.arange(8.0)[:, None]).pow(2).mean()
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            scheduler.step()
        models.append(model)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=1e-5, atol=1e-6)


def test_an_added_param_group_stays(torch: Any) -> None:
    model, added = make_model(torch), torch.nn.Parameter(torch.ones(3))
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1), GROUPS, phases=PHASES), model, TOTAL)
    optimizer.add_param_group({"params": [added], "lr": 0.7})
    train(torch, model, optimizer, scheduler, range(TOTAL))
    assert optimizer.param_groups[-1]["params"] == [added]
    assert scheduler.get_last_lr()[-1] == optimizer.param_groups[-1]["lr"] == 0.7


def test_rates_that_are_tensors_stay_the_same_tensors(torch: Any) -> None:
    model = make_model(torch)
    spec = ll.Spec(ll.AdamW(0.1), GROUPS, ll.CosineDecay(), phases=PHASES)
    optimizer, scheduler = ll.compile(spec, model, TOTAL)
    tensors = [torch.tensor(group["lr"]) for group in optimizer.param_groups]
    for group, tensor in zip(optimizer.param_groups, tensors, strict=True):
        group["lr"] = tensor
    plan = ll.resolve(spec, model, TOTAL)
    for step in range(TOTAL):
        assert torch.equal(torch.stack(tensors), torch.tensor(plan.rates(step)))
        train(torch, model, optimizer, scheduler, range(step, step + 1))
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, tensors, strict=True))


def by_last_epoch(torch: Any, optimizer: Any, scheduler: Any) -> None:
    """As Ignite does it."""
    scheduler.last_epoch += 1
    scheduler._get_lr_called_within_step = True
    rates = scheduler.get_lr()
    scheduler._get_lr_called_within_step = False
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def by_step_update(torch: Any, optimizer: Any, scheduler: Any) -> None:
    scheduler.step_update(scheduler.last_epoch + 1)


def by_step(torch: Any, optimizer: Any, scheduler: Any) -> None:
    scheduler.step()


def by_chain(torch: Any, optimizer: Any, scheduler: Any) -> None:
    torch.optim.lr_scheduler.ChainedScheduler([scheduler]).step()


@pytest.mark.parametrize("drive", [by_last_epoch, by_step_update, by_step, by_chain])
def test_phases_and_momentum_come_in_however_it_is_driven(torch: Any, drive: Any) -> None:
    model = make_model(torch)
    groups = [ll.Group("0", schedule=ll.OneCycleLR(0.2)), *GROUPS[1:]]
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), groups, phases=PHASES)
    optimizer, scheduler = ll.compile(spec, model, TOTAL)
    plan = ll.resolve(spec, model, TOTAL)
    for step in range(TOTAL):
        assert [group["lr"] for group in optimizer.param_groups] == plan.rates(step)
        update(torch, model, optimizer, step)
        assert model[0].weight.requires_grad == (step >= 3)
        if (momentum := plan.momenta(step)[0]) is not None:
            assert optimizer.param_groups[0]["momentum"] == momentum
        drive(torch, optimizer, scheduler)


def test_behind_another_scheduler(torch: Any) -> None:
    """``SequentialLR`` sets its schedulers back, and lets each begin with ``step(0)`` or by what that calls."""
    model = make_model(torch)
    spec = ll.Spec(ll.SGD(0.1), GROUPS, ll.CosineDecay())
    optimizer, scheduler = ll.compile(spec, model, TOTAL)
    warmup = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=100)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], milestones=[2])
    plan, rates = ll.resolve(spec, model, TOTAL), []
    for step in range(5):
        rates.append([group["lr"] for group in optimizer.param_groups])
        update(torch, model, optimizer, step)
        both.step()
    assert rates == [[0.025, 0.05, 0.05]] * 2 + [plan.rates(step) for step in range(3)]
    scheduler.step(0)
    assert scheduler.get_last_lr() == plan.rates(0)


@pytest.mark.parametrize("optimizer", [ll.SGD(0.1, momentum=0.9, dampening=0.5), ll.AdamW(0.01), ll.NAdam(0.01)])
@pytest.mark.parametrize("first", ["optimizer", "scheduler"])
@pytest.mark.parametrize("stop", [2, 3, 5])
def test_states_load_in_either_order(torch: Any, optimizer: ll.Optimizer, first: str, stop: int) -> None:
    """As ``torch.distributed.checkpoint`` loads them, which leaves out what requires no gradient."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    spec = ll.Spec(optimizer, GROUPS, no_weight_decay="1d", phases=[*PHASES[:1], ll.Phase("6 steps", weight_decay=0.1)])
    whole, old, new = (make_model(torch) for _ in range(3))
    train(torch, whole, *ll.compile(spec, whole, TOTAL), range(TOTAL))
    old_optimizer, old_scheduler = ll.compile(spec, old, TOTAL)
    train(torch, old, old_optimizer, old_scheduler, range(stop))
    saved = copy.deepcopy((get_optimizer_state_dict(old, old_optimizer), old_scheduler.state_dict()))
    new_optimizer, new_scheduler = ll.compile(spec, new, TOTAL)
    new.load_state_dict(old.state_dict())
    for what in (first, "scheduler" if first == "optimizer" else "optimizer"):
        if what == "optimizer":
            set_optimizer_state_dict(new, new_optimizer, saved[0])
        else:
            new_scheduler.load_state_dict(saved[1])
    train(torch, new, new_optimizer, new_scheduler, range(stop, TOTAL))
    assert_same(whole, new)


def test_a_phase_freezes_where_no_module_is_called(torch: Any) -> None:
    model = torch.nn.ParameterDict(
        {"body": torch.nn.Parameter(torch.ones(2)), "head": torch.nn.Parameter(torch.ones(2))}
    )
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head")], phases=[ll.Phase("2 steps", trained="head"), ll.Phase()])
    optimizer, scheduler = ll.compile(spec, model, 4)
    moved = []
    for _ in range(4):
        optimizer.zero_grad()
        before = model["body"].detach().clone()
        (model["body"] * model["head"]).sum().backward()
        optimizer.step()
        scheduler.step()
        moved.append(not torch.equal(model["body"], before))
    assert moved == [False, False, True, True]


@pytest.mark.parametrize("fused", [None, True])
def test_a_user_may_clip_under_a_grad_scaler(torch: Any, fused: bool | None) -> None:
    """Lightning refuses to clip where the optimizer unscales gradients itself, unless the user chose that."""
    models = []
    for scaler in (torch.amp.GradScaler("cpu", enabled=False), torch.amp.GradScaler("cpu", init_scale=256.0)):
        model = make_model(torch)
        optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9, fused=fused)), model)
        assert getattr(optimizer, "_step_supports_amp_scaling", False) == bool(fused)
        for step in range(3):
            torch.manual_seed(step)
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(8, 4)).pow(2).sum()).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
        models.append(model)
    assert_same(*models)  # a power of 2 changes no bit
