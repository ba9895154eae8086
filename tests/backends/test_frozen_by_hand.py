"""Parameters with ``requires_grad=False``, as PEFT leaves most of a model: plan and optimizer show what trains."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import layered_lr as ll

SPEC = ll.Spec(
    ll.AdamW(1e-2, weight_decay=0.1),
    [ll.Group("*base*", lr_scale=0.1, name="base"), ll.Group("*lora_b*", lr_scale=4.0, name="b")],
    ll.CosineDecay(),
    no_weight_decay="1d",
)
PHASES = ll.Spec(
    SPEC.optimizer, SPEC.groups, SPEC.schedule, phases=[ll.Phase("2 steps", frozen="*lora_a*"), ll.Phase()]
)


def adapted(torch: Any) -> Any:
    """A layer with adapters beside it, as PEFT names them; the layer is frozen."""
    torch.manual_seed(0)

    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = torch.nn.Linear(40, 30).requires_grad_(False)
            self.lora_a, self.lora_b = torch.nn.Linear(40, 2, bias=False), torch.nn.Linear(2, 30, bias=False)
            self.head = torch.nn.Linear(30, 3)
            self.head.bias.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            return self.head(self.base(x) + self.lora_b(self.lora_a(x)))

    return Adapted()


def update(torch: Any, model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 40)).square().sum().backward()
    optimizer.step()


def trained(optimizer: Any) -> int:
    return sum(tensor.numel() for group in optimizer.param_groups for tensor in group["params"])


@pytest.mark.parametrize("spec", [SPEC, PHASES], ids=["plain", "phases"])
def test_plan_and_optimizer_have_what_trains(torch: Any, spec: ll.Spec) -> None:
    model = adapted(torch)
    wanted = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    optimizer, scheduler = ll.compile(spec, model, total_steps=4)
    own = torch.optim.AdamW(ll.param_groups(spec, model))
    assert trained(optimizer) == trained(own) == sum(group.elements for group in scheduler.plan.groups) == wanted
    text = str(scheduler.plan)
    assert "0 of 2" in text and "2 of 3" in text and "6 parameters (3 with requires_grad=False)" in text
    assert [name for group in own.param_groups for name in group["param_names"]] == [
        "lora_b.weight", "lora_a.weight", "head.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("spec", [SPEC, PHASES], ids=["plain", "phases"])
@pytest.mark.parametrize("halves", [False, True], ids=["compile", "halves"])
def test_it_trains_as_torch_with_what_requires_a_gradient(torch: Any, spec: ll.Spec, halves: bool) -> None:
    model, twin = adapted(torch), adapted(torch)
    if halves:
        optimizer = torch.optim.AdamW(ll.param_groups(spec, model))
        scheduler = ll.scheduler(spec, optimizer, model, total_steps=4)
    else:
        optimizer, scheduler = ll.compile(spec, model, total_steps=4)
    other = torch.optim.AdamW(
        [{"params": [twin.lora_b.weight]}, {"params": [twin.lora_a.weight]}, {"params": [twin.head.weight]}],
        weight_decay=0.1,
        foreach=False,
    )
    for step in range(4):
        rates = scheduler.plan.lr(step)
        frozen = spec is PHASES and step < 2
        for group, name in zip(other.param_groups, ("b", "rest", "rest"), strict=True):
            group["lr"] = rates[name]
        update(torch, model, optimizer)
        scheduler.step()
        other.zero_grad()
        twin(torch.ones(4, 40)).square().sum().backward()
        if frozen:
            twin.lora_a.weight.grad = None
        other.step()
    for (name, one), (_, two) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6, msg=name)  # fused kernels round otherwise


@pytest.mark.parametrize("make_copy", [lambda optimizer: optimizer, copy.deepcopy], ids=["itself", "copy"])
def test_one_that_requires_a_gradient_later_is_refused(torch: Any, make_copy: Any) -> None:
    """The optimizer does not have it, so it would never move."""
    model = adapted(torch)
    optimizer, _ = ll.compile(SPEC, model, total_steps=4)
    update(torch, model, optimizer)
    if make_copy is copy.deepcopy:
        model, optimizer = copy.deepcopy((model, optimizer))
    model.base.weight.requires_grad_(True)
    with pytest.raises(ll.Unsupported, match=r"'base.weight' requires a gradient now, .* freeze by phases"):
        update(torch, model, optimizer)


def test_one_that_is_added_trains(torch: Any) -> None:
    """As Lightning's ``BaseFinetuning`` does it."""
    model = adapted(torch)
    optimizer, scheduler = ll.compile(SPEC, model, total_steps=4)
    model.base.weight.requires_grad_(True)
    optimizer.add_param_group({"params": [model.base.weight], "lr": 0.5, "name": "added"})
    before = model.base.weight.detach().clone()
    for _ in range(2):
        update(torch, model, optimizer)
        scheduler.step()
    assert not torch.equal(before, model.base.weight) and optimizer.param_groups[-1]["lr"] == 0.5


def test_what_is_frozen_by_hand_stays_so_in_each_phase(torch: Any) -> None:
    """The user's own ``requires_grad=False`` wins over phases."""
    model = adapted(torch)
    spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase("1 step", frozen=["lora_a", "base"]), ll.Phase()])
    optimizer, scheduler = ll.compile(spec, model)
    before = model.base.weight.detach().clone()
    for _ in range(3):
        update(torch, model, optimizer)
        scheduler.step()
    assert torch.equal(before, model.base.weight) and not model.base.weight.requires_grad


def test_saved_states_go_on(torch: Any, tmp_path: Any) -> None:
    model, optimizer, scheduler = (made := adapted(torch), *ll.compile(SPEC, made, total_steps=4))
    update(torch, model, optimizer)
    scheduler.step()
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    second, other, later = (made := adapted(torch), *ll.compile(SPEC, made, total_steps=4))
    ll.load_state(tmp_path / "state", second, other, later)
    for each, trains, goes in ((model, optimizer, scheduler), (second, other, later)):
        update(torch, each, trains)
        goes.step()
    for one, two in zip(model.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
