"""Muon, SparseAdam and LBFGS on torch: they are not for any parameter, or not for any loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll


def weights_after(torch: Any, optimizer: Any, parameter: Any, steps: int = 12) -> Any:
    rng = np.random.default_rng(5)
    for _ in range(steps):
        parameter.grad = torch.tensor(rng.standard_normal(tuple(parameter.shape)), dtype=parameter.dtype)
        optimizer.step()
    return parameter.detach().clone()


def matrix(torch: Any, *shape: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(6)
    return torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=getattr(torch, dtype)))


@pytest.mark.parametrize("options", [{}, {"nesterov": False, "ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"}])
@pytest.mark.parametrize("shape", [(3, 5), (7, 2)])
def test_our_muon_is_torchs_bitwise(torch: Any, options: dict[str, Any], shape: tuple[int, int]) -> None:
    from layered_lr_torch.muon import Muon

    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon since 2.9")
    ours, theirs = matrix(torch, *shape), matrix(torch, *shape)
    one = weights_after(torch, Muon([ours], lr=0.02, **options), ours)
    assert torch.equal(one, weights_after(torch, torch.optim.Muon([theirs], lr=0.02, **options), theirs))


def test_convolutions_are_matrices_only_where_asked(torch: Any) -> None:
    from layered_lr_torch.muon import Muon

    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, bias=False), torch.nn.Flatten(), torch.nn.Linear(4, 3))
    refused = ll.Spec(ll.AdamW(), [ll.Group("0", optimizer=ll.Muon())])
    with pytest.raises(ll.SpecError, match=r"group '0': Muon takes matrices only, but '0.weight'.*flatten=True"):
        ll.compile(refused, model)
    spec = ll.Spec(ll.AdamW(), [ll.Group("0", optimizer=ll.Muon(0.02, flatten=True))])
    optimizer, _ = ll.compile(spec, model)
    start = model[0].weight.detach().clone()
    gradient = torch.ones_like(start)
    model[0].weight.grad = gradient
    optimizer.step()
    flat = torch.nn.Parameter(start.flatten(1))
    flat.grad = gradient.flatten(1)
    Muon([flat], lr=0.02).step()
    assert torch.equal(model[0].weight.detach().flatten(1), flat.detach())
    assert torch.is_tensor(optimizer.state[model[0].weight]["momentum_buffer"])


def test_sparse_adam_beside_another(torch: Any) -> None:
    def build() -> Any:
        torch.manual_seed(0)
        return torch.nn.ModuleDict({"table": torch.nn.Embedding(6, 4, sparse=True), "head": torch.nn.Linear(4, 2)})

    model, hand = build(), build()
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("table", optimizer=ll.SparseAdam(0.01))])
    optimizer, _ = ll.compile(spec, model)
    others = [
        torch.optim.SparseAdam(hand["table"].parameters(), lr=0.01),
        torch.optim.SGD(hand["head"].parameters(), lr=0.1),
    ]
    for step in range(4):
        rows = torch.tensor([step, step + 2])
        for nets, steps in ((model, [optimizer]), (hand, others)):
            nets.zero_grad(set_to_none=True)
            nets["head"](nets["table"](rows)).square().sum().backward()
            for one in steps:
                one.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), hand.parameters(), strict=True))


def test_lbfgs_takes_a_closure(torch: Any, tmp_path: Any) -> None:
    goal = torch.tensor([1.0, -2.0])
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer, scheduler = ll.compile(ll.Spec(ll.LBFGS(0.5), schedule=ll.ExponentialLR(0.9)), model)
    assert type(optimizer) is torch.optim.LBFGS

    def closure() -> Any:
        optimizer.zero_grad()
        loss = ((model.weight[0] - goal) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
        scheduler.step()
    assert (model.weight[0].detach() - goal).abs().max() < 1e-3
    with pytest.raises(ll.Unsupported, match="LBFGS belongs to all of them together"):
        ll.save_state(tmp_path / "state", model, optimizer, scheduler)


@pytest.mark.parametrize(
    ("optimizer", "backend", "reason"),
    [
        (ll.LBFGS(), "torch-eager", "calls the model several times.*ll.compile"),
        (ll.LBFGS(), "oneflow-eager", "do not have LBFGS"),
        (ll.LBFGS(), "oneflow-graph", "do not have LBFGS"),
        (ll.SparseAdam(), "oneflow-eager", "do not have SparseAdam.*OneFlow has none"),
        (ll.SparseAdam(), "oneflow-graph", "do not have SparseAdam.*OneFlow has none"),
    ],
)
def test_what_a_backend_cannot_do_is_refused_with_the_reason(optimizer: Any, backend: str, reason: str) -> None:
    plan = ll.resolve(ll.Spec(optimizer), [("w", (2, 2))])
    with pytest.raises(ll.Unsupported, match=reason):
        plan.lowering(backend)


def test_a_run_says_that_sparse_adam_takes_no_dense_gradients(torch: Any) -> None:
    from tests.support.models import arrays, mlp

    spec = ll.Spec(ll.SparseAdam(0.1))
    with pytest.raises(ll.SpecError, match="SparseAdam takes sparse gradients alone"):
        ll.run(spec, "torch-eager", mlp(torch), arrays(), max_steps=1, batch_size=8, progress=False, device="cpu")
