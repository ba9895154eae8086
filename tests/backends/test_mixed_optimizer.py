"""Groups with optimizers of other kinds: the same as separate optimizers of torch, in torch's format."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.mixed_cases import STEPS, backward, begun, go_on, net, spec_of

MEMBERS = (("body.weight", "mid.weight"), ("head.weight", "head.bias"), ("mid.bias",), ("body.bias",))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def by_hand(torch: Any, clip: float | None) -> dict[str, Any]:
    """Separate optimizers of torch, in float64, where ours have torch's defaults."""
    model = net(torch)
    named = dict(model.named_parameters())
    members = [[named[name] for name in names] for names in MEMBERS]
    optimizers = [
        torch.optim.Muon(members[0], momentum=0.9, weight_decay=0.2),
        torch.optim.SGD(members[1], momentum=0.7),
        torch.optim.Adagrad(members[2], initial_accumulator_value=0.1),
        torch.optim.AdamW(members[3], weight_decay=0.0),
    ]
    plan = ll.resolve(spec_of(), model, total_steps=STEPS)
    for step in range(STEPS):
        backward(torch, model, step)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimizer, rate in zip(optimizers, plan.rates(step), strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
    return {name: p.detach().numpy() for name, p in named.items()}


@pytest.fixture(autouse=True)
def _has_muon(torch: Any) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("the oracle is torch.optim.Muon, which came with torch 2.9")


@pytest.mark.parametrize("clip", [None, 0.3])
def test_it_trains_as_separate_optimizers_do(torch: Any, clip: float | None) -> None:
    spec = spec_of() if clip is None else spec_of(clip_grad_norm=clip)  # one norm over all kinds
    assert equal(go_on(torch, begun(torch, spec), 0), by_hand(torch, clip))


def test_its_format_is_torchs(torch: Any) -> None:
    model, optimizer, scheduler = begun(torch)
    assert isinstance(optimizer, torch.optim.Optimizer)
    go_on(torch, (model, optimizer, scheduler), 0, 2)
    slots = {name: set(optimizer.state[p]) for name, p in model.named_parameters()}
    assert slots["mid.weight"] == {"momentum_buffer"}
    assert slots["head.bias"] == {"momentum_buffer"}
    assert slots["mid.bias"] == {"step", "sum"}
    assert slots["body.bias"] == {"step", "exp_avg", "exp_avg_sq"}
    groups = optimizer.param_groups
    assert [group["optimizer"] for group in groups] == ["Muon", "SGD", "Adagrad", "AdamW"]
    assert groups[0]["momentum"] == 0.9 and "betas" not in groups[0] and "momentum" not in groups[3]
    assert set(optimizer.state_dict()) == {"state", "param_groups"}


def test_one_kind_stays_torchs_own_class(torch: Any) -> None:
    optimizer = begun(torch, ll.Spec(ll.SGD(0.1), [ll.Group("*", optimizer=ll.AdamW(0.1))]))[1]
    assert type(optimizer) is torch.optim.AdamW
    nothing = ll.Group("nothing*", optional=True, optimizer=ll.Muon())
    assert type(begun(torch, ll.Spec(ll.SGD(0.1), [nothing]))[1]) is torch.optim.SGD


def test_states_copies_and_pickles_go_on_bitwise(torch: Any, tmp_path: Path) -> None:
    loop = begun(torch, spec_of(clip_grad_norm=0.3))
    go_on(torch, loop, 0, 5)
    model, optimizer, scheduler = loop
    ll.save_state(tmp_path / "state", *loop)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    loaded, saved, copied = begun(torch, spec_of(clip_grad_norm=0.3)), begun(torch, spec_of(clip_grad_norm=0.3)), None
    loaded[0].load_state_dict(model.state_dict())
    loaded[1].load_state_dict(torch.load(buffer, weights_only=True))
    loaded[2].load_state_dict(scheduler.state_dict())
    ll.load_state(tmp_path / "state", *saved)
    copied = copy.deepcopy(loop)
    whole = go_on(torch, loop, 5)
    for other in (loaded, saved, copied):
        assert equal(go_on(torch, other, 5), whole)


def test_a_state_of_another_mix_is_refused(torch: Any, tmp_path: Path) -> None:
    loop = begun(torch)
    go_on(torch, loop, 0, 2)
    ll.save_state(tmp_path / "state", *loop)
    other = begun(torch, ll.Spec(ll.AdamW(0.01), [ll.Group("head", optimizer=ll.LARS(0.1))]))
    before = {name: p.detach().numpy().copy() for name, p in other[0].named_parameters()}
    with pytest.raises(ll.CheckpointError, match=r"the state is of (Muon|SGD|Adagrad), the optimizer is"):
        ll.load_state(tmp_path / "state", *other)
    assert equal({name: p.detach().numpy() for name, p in other[0].named_parameters()}, before)
    swapped = begun(torch, ll.Spec(ll.AdamW(0.01), [ll.Group(n, optimizer=ll.Muon()) for n in ("mid.weight",)]))
    with pytest.raises(ValueError, match="param group"):
        swapped[1].load_state_dict(loop[1].state_dict())


def test_hooks_added_groups_closures_and_a_grad_scaler(torch: Any) -> None:
    model, optimizer, _ = begun(torch)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    extra = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
    optimizer.add_param_group({"params": [extra], "lr": 0.1, "optimizer": "Muon"})
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    assert [group["optimizer"] for group in optimizer.param_groups[-2:]] == ["Muon", "AdamW"]
    assert "ns_steps" in optimizer.param_groups[-2] and "betas" in optimizer.param_groups[-1]

    def closure() -> Any:
        backward(torch, model, 0)
        extra.grad = torch.eye(4, dtype=torch.float64)
        return 7

    assert optimizer.step(closure) == 7 and calls == [1]
    assert (extra.detach() != 1).any()
    with pytest.raises(ValueError, match="2D"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "optimizer": "Muon"})
    with pytest.raises(ll.SpecError, match="'Lion': this optimizer has AdamW, Muon, SGD, Adagrad"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "optimizer": "Lion"})
    assert len(optimizer.param_groups) == 6
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ends = []
    for scale in (False, True):
        loop = begun(torch)
        backward(torch, loop[0], 0)
        if scale:
            for parameter in loop[0].parameters():
                parameter.grad = scaler.scale(parameter.grad)
            scaler.step(loop[1])
        else:
            loop[1].step()
        ends.append({name: p.detach().numpy() for name, p in loop[0].named_parameters()})
    assert equal(*ends)


def test_dcp_saves_and_loads_by_names(torch: Any) -> None:
    from torch.distributed.checkpoint import state_dict as dcp

    loop = begun(torch)
    go_on(torch, loop, 0, 3)
    table = copy.deepcopy(dcp.get_optimizer_state_dict(loop[0], loop[1]))
    assert set(table["state"]["mid.weight"]) == {"momentum_buffer"}
    other = begun(torch)
    other[0].load_state_dict(loop[0].state_dict())
    dcp.set_optimizer_state_dict(other[0], other[1], table)
    other[2].load_state_dict(loop[2].state_dict())
    assert equal(go_on(torch, other, 3), go_on(torch, loop, 3))


def test_a_late_parameter_of_fused_sgd_beside_others(torch: Any) -> None:
    """Its first update comes after those of its group, whose buffers the fused kernel wants all or none of."""
    phases = [ll.Phase("2 steps", frozen="head.bias"), ll.Phase()]
    loop = begun(torch, spec_of(phases=phases))
    first = loop[0].head.bias.detach().clone()
    go_on(torch, loop, 0, 2)
    assert torch.equal(loop[0].head.bias.detach(), first)
    go_on(torch, loop, 2, 4)
    assert not torch.equal(loop[0].head.bias.detach(), first)


def test_param_groups_for_one_optimizer_are_refused(torch: Any) -> None:
    with pytest.raises(ll.Unsupported, match=r"several kinds.*AdamW and Muon and SGD and Adagrad.*ll.compile"):
        ll.param_groups(spec_of(), net(torch))


def test_a_trainer_gets_the_same_optimizer_and_makes_its_scheduler_later(torch: Any) -> None:
    from layered_lr_torch.own_optimizer import build_bare_optimizer

    spec, model = spec_of(), net(torch)
    optimizer = build_bare_optimizer(spec, model)
    loop = model, optimizer, ll.scheduler(spec, optimizer, model, total_steps=STEPS)
    ends, whole = go_on(torch, loop, 0), by_hand(torch, None)
    # 1e-13: torch chooses implementations here, which round the last bit otherwise
    assert max(np.abs(ends[name] - whole[name]).max() for name in ends) < 1e-13
    alone = ll.Spec(ll.SGD(0.1), [ll.Group("*", optimizer=ll.RAdam(0.1))])
    assert type(build_bare_optimizer(alone, net(torch))) is torch.optim.RAdam


def test_phases_keep_a_groups_kind_unless_they_give_another() -> None:
    phases = [ll.Phase("2 steps", weight_decay=0.05), ll.Phase("4 steps", groups=[ll.Group("head", lr_scale=0.1)])]
    spec = spec_of(phases=[*phases, ll.Phase(groups=[ll.Group("head", optimizer=ll.AdamW(0.3))])])
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    groups = [spec.in_phase(phase).groups for phase in spec.phases]
    kinds = [[type(group.optimizer).__name__ for group in some] for some in groups]
    assert kinds == [["Muon", "SGD", "Adagrad"], ["Muon", "SGD", "Adagrad"], ["Muon", "AdamW", "Adagrad"]]
    first = spec.in_phase(spec.phases[0])
    decays = [first.optimizer_of(group).weight_decay for group in first.groups]
    assert decays == [0.2, 0.05, 0.05]  # the first group has its own


def oneflow_ends(dtype: str) -> dict[str, dict[str, list[float]]]:
    """The weights after eager mode and after a graph."""
    from layered_lr_oneflow.runtime import flow
    from tests.support.mixed_cases import begun, go_on, spec_of, train_graph

    spec = spec_of(clip_grad_norm=0.3)
    ends = {"eager": go_on(flow, begun(flow, spec, dtype), 0), "graph": train_graph(flow, spec, dtype)}
    return {mode: {name: array.tolist() for name, array in end.items()} for mode, end in ends.items()}


def test_oneflow_trains_a_mix_as_torch_does(oneflow: Any, torch: Any) -> None:
    """1e-9 of the distance: some updates of products whose sums differ in the last bit."""
    expected, start = go_on(torch, begun(torch, spec_of(clip_grad_norm=0.3)), 0), net(torch).state_dict()
    for mode, end in value_of(oneflow_ends, "float64").items():
        for name, values in end.items():
            moved = np.abs(expected[name] - start[name].numpy()).max()
            assert np.abs(np.array(values) - expected[name]).max() < 1e-9 * moved, (mode, name)
