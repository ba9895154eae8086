"""Every optimizer on torch: torch itself, driven by hand, is the oracle."""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from tests.backends.models import arrays, mlp, mlp_weights

STEPS = 200
TORCHS = [name for name in OPTIMIZERS if name not in ("LAMB", "LARS", "Lion")]
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
    return {name: value for name, value in drawn.items() if name in known}


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


def backward(torch: Any, model: Any, at: int) -> None:
    """The gradient of a bounded loss, so that going up it leads nowhere infinite."""
    x, y, _, _ = arrays(64)
    part = slice(8 * (at % 8), 8 * (at % 8) + 8)
    logits = model(torch.tensor(x[part]).to(next(model.parameters()).dtype))
    loss = 1 - torch.softmax(logits, 1)[torch.arange(8), torch.tensor(y[part])].mean()
    model.zero_grad(set_to_none=True)
    loss.backward()


def by_hand(torch: Any, model: Any, case: Case, name: str, **how: Any) -> None:
    """Torch alone: its class, its param groups, its rates set by assignment."""
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[member] for member in members], **settings}
        for members, settings in zip(MEMBERS, case.groups, strict=True)
    ]
    start = {} if name != "Adagrad" else None
    optimizers = [getattr(torch.optim, name)(groups, **how)]
    if start is None:  # torch takes the sum's first value from the constructor alone
        optimizers = [torch.optim.Adagrad([group], **(_constructor(group) | how)) for group in groups]
    for at in range(STEPS):
        backward(torch, model, at)
        params = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(params, case.rates[at], strict=True):
            group["lr"] = rate
        for optimizer in optimizers:
            optimizer.step()


def _constructor(group: dict[str, Any]) -> dict[str, Any]:
    return {"initial_accumulator_value": group["initial_accumulator_value"]}


def values(model: Any) -> NDArray[np.float64]:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def chosen(optimizer: Any) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: group[name] for name in ("foreach", "fused") if name in group}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_200_steps_are_torchs(torch: Any, name: str, settings: dict[str, Any], dtype: str) -> None:
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
