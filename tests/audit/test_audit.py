"""``ll.audit``: it says nothing about clean recipes, finds each planted fault in its place, and touches nothing."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.findings import KINDS
from tests.support.audited_nets import convolutional, make_updates, perceptron
from tests.support.clean_recipes import CLEAN
from tests.support.faulty_recipes import FAULTS
from tests.support.old_torch import is_oldest

# What a planted fault brings along: a replaced layer is in no group and leaves a foreign parameter behind.
TOGETHER = {"in-no-group", "foreign-parameter", "frozen-but-listed", "frozen-but-moving"}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_recipe_has_no_findings(torch: Any, name: str) -> None:
    audit = ll.audit(**CLEAN[name]())
    assert audit.findings == () and audit.unchecked == (), str(audit)
    assert audit.ok


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_in_its_place(torch: Any, name: str) -> None:
    make, kind, place = FAULTS[name]
    if name == "a_cosine_that_begins_in_the_middle" and is_oldest():
        pytest.skip("torch 2.4 goes on from the middle by itself: there is no fault")
    audit = ll.audit(**make())
    found = [finding for finding in audit.findings if finding.kind == kind]
    assert found and not audit.ok, str(audit)
    assert any(place in (*finding.groups, *finding.parameters) for finding in found), str(audit)
    assert set(audit.kinds) - TOGETHER <= {kind}, str(audit)
    assert kind in str(audit) and audit.unchecked == ()


def test_every_kind_is_planted() -> None:
    in_two_processes = {"ranks-differ"}  # test_ranks.py
    assert {fault.kind for fault in FAULTS.values()} | in_two_processes == set(KINDS)
    assert len(FAULTS) >= 30 and len(CLEAN) >= 30
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []


def state_of(value: Any) -> Any:
    """Everything that an audit might change, comparable."""
    import torch

    if isinstance(value, torch.nn.Module):
        flags = [(name, module.training) for name, module in value.named_modules()]
        return flags, [(name, p.tolist(), p.requires_grad) for name, p in value.named_parameters()]
    if isinstance(value, torch.optim.Optimizer):
        groups = [{key: each for key, each in group.items() if key != "params"} for group in value.param_groups]
        sizes = [len(group["params"]) for group in value.param_groups]
        return copy.deepcopy(groups), sizes, str(value.state_dict())
    if hasattr(value, "state_dict"):
        return copy.deepcopy({key: each for key, each in value.state_dict().items() if not callable(each)})
    return None


@pytest.mark.parametrize("name", ["fastai_discriminative_one_cycle", "resumed_with_both_states", "plateau", "cyclic"])
def test_nothing_is_touched(torch: Any, name: str) -> None:
    given = CLEAN[name]()
    watched = [given["optimizer"], given["model"], given["scheduler"]]
    before = [state_of(each) for each in watched], torch.get_rng_state().tolist()
    ll.audit(**given)
    assert ([state_of(each) for each in watched], torch.get_rng_state().tolist()) == before


def test_a_frozen_parameter_with_a_gradient_really_moves(torch: Any) -> None:
    """What ``frozen-but-moving`` says, in the weights."""
    given = FAULTS["frozen_with_zeros_and_decay"].make()
    before = given["model"].body.weight.detach().clone()
    given["optimizer"].step()
    assert not torch.equal(given["model"].body.weight, before)


def test_the_json_and_the_text_say_the_same(torch: Any) -> None:
    audit = ll.audit(**FAULTS["a_floor_above_a_rate"].make())
    table = json.loads(audit.to_json())
    finding = audit.findings[0]
    assert table["ok"] is False and table["findings"][0]["kind"] == finding.kind
    assert table["findings"][0]["groups"] == ["group 0"]
    lines = str(audit).splitlines()
    assert lines[0] == "AdamW, CosineAnnealingLR, 2 groups, 4 of 4 parameters: 1 finding"
    assert finding.effect in str(audit) and finding.mend in str(audit) and finding.what in str(audit)


def test_many_parameters_take_less_than_a_second_beside_the_steps(torch: Any) -> None:
    net = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(500)))
    optimizer = torch.optim.AdamW([{"params": [p], "lr": 1e-3} for p in net.parameters()])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    ll.audit(optimizer, perceptron())  # imports
    began = time.process_time()
    assert len(ll.audit(optimizer, net, scheduler, steps=1).findings) == 1  # it never acts
    assert time.process_time() - began < 1.0


def test_a_scheduler_that_cannot_be_copied_is_said(torch: Any) -> None:
    net = perceptron()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    class Uncopied:
        def __init__(self) -> None:
            self.optimizer, self.held = optimizer, (line for line in "")

        def step(self) -> None: ...

    audit = ll.audit(optimizer, net, Uncopied())
    assert audit.ok and len(audit.unchecked) == 1 and "Uncopied" in audit.unchecked[0]
    assert "not checked: the rates of Uncopied" in str(audit)


def test_a_model_that_cannot_be_copied_is_audited_as_it_is(torch: Any) -> None:
    net = convolutional()
    net.held = (line for line in "")
    net.stem.requires_grad_(False)
    optimizer = torch.optim.SGD([*net.body.parameters(), *net.head.parameters()], lr=0.1)
    assert ll.audit(optimizer, net).kinds == ("batch-norm-moves",)


def test_a_wrapped_optimizer_and_scheduler_are_unwrapped(torch: Any) -> None:
    net = perceptron()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    class Wrapper(torch.optim.Optimizer):  # as accelerate's
        def __init__(self, inner: Any) -> None:
            self.optimizer = inner

    class Scheduler:
        def __init__(self, inner: Any) -> None:
            self.scheduler = inner

        def step(self) -> None:
            self.scheduler.step()

    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    assert ll.audit(Wrapper(optimizer), net, Scheduler(scheduler), steps=10).ok
    assert ll.audit(Wrapper(optimizer), net, Scheduler(scheduler), steps=100).kinds == ("length-mismatch",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": None}, "optimizer is a NoneType; must be a torch.optim.Optimizer"),
        ({"optimizer": []}, "optimizer=[] is empty"),
        ({"model": None}, "model is a NoneType; must be a torch.nn.Module"),
        ({"scheduler": 3}, "scheduler is a int; must be a scheduler of torch or timm"),
        ({"steps": 0}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"ema": 3}, "ema is a int; must be tensors"),
        ({"ema": {"a": 1}}, "ema is a mapping"),
        ({"clipped": ["a"]}, "clipped is a list; must be tensors"),
    ],
)
def test_wrong_input_is_refused(torch: Any, change: dict[str, Any], message: str) -> None:
    net = perceptron()
    given = {"optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "model": net} | change
    with pytest.raises(ll.SpecError) as error:
        ll.audit(**given)
    assert message in str(error.value)


def test_classes_are_told_from_objects(torch: Any) -> None:
    net = perceptron()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ll.SpecError, match="the class SGD"):
        ll.audit(torch.optim.SGD, net)
    with pytest.raises(ll.SpecError, match=r"the class Linear.*Linear\(\.\.\.\)"):
        ll.audit(optimizer, torch.nn.Linear)
    with pytest.raises(ll.SpecError, match="the class StepLR"):
        ll.audit(optimizer, net, torch.optim.lr_scheduler.StepLR)


def test_a_run_goes_on_as_without_an_audit(torch: Any) -> None:
    """Weights after more updates, bitwise."""
    ends = []
    for audited in (False, True):
        torch.manual_seed(0)
        net = convolutional()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)
        make_updates(net, optimizer, scheduler, 3)
        if audited:
            ll.audit(optimizer, net, scheduler, steps=8)
        make_updates(net, optimizer, scheduler, 3)
        ends.append([p.tolist() for p in net.state_dict().values()])
    assert ends[0] == ends[1]
