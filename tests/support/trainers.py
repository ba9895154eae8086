"""What the tests of other trainers share: a tiny model, data, specs, and a record of the rates of each update."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import layered_lr as ll

BATCHES, EPOCHS, SIZE = 6, 3, 8  # of an epoch; of a run; of a batch


class Net(nn.Module):
    """Three parts, with a batch normalisation that a phase holds still; the same numbers each time."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12))
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(self.stem(x)))


def make_data() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    size = BATCHES * SIZE
    return torch.utils.data.TensorDataset(
        torch.randn(size, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator)
    )


def make_loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(make_data(), batch_size=SIZE)


def make_spec(prefix: str = "", phases: Any = (), **more: Any) -> ll.Spec:
    """Rates in epochs, a momentum that moves, a warm-up."""
    groups = [
        ll.Group(f"{prefix}stem", lr=0.05, lr_scale=0.1, name="stem", schedule=ll.StepLR(1, gamma=0.5, unit="epoch")),
        ll.Group(f"{prefix}body", lr_scale=0.3, name="body", schedule=ll.OneCycleLR(max_lr=0.2)),
        ll.Group(f"{prefix}head", name="head", schedule=ll.CosineDecay(warmup_steps=2)),
    ]
    return ll.Spec(ll.SGD(0.1, momentum=0.9), groups, phases=phases, **more)


def make_phases(prefix: str = "") -> ll.Spec:
    return make_spec(prefix, [ll.Phase("1 epoch", frozen=f"{prefix}stem"), ll.Phase()])


def make_plateau(prefix: str = "") -> ll.Spec:
    """No loss is good enough: after the second reading the rate of ``body`` is halved."""
    plateau = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=1e9, threshold_mode="abs")
    return ll.Spec(
        ll.SGD(0.1, momentum=0.9),
        [ll.Group(f"{prefix}stem", name="stem"), ll.Group(f"{prefix}body", schedule=plateau, name="body")],
    )


class Record:
    """The rates and momenta by group that each update of an optimizer has."""

    def __init__(self, optimizer: Any) -> None:
        self.rates: list[dict[str, float]] = []
        self.momenta: list[dict[str, Any]] = []
        self._handle = optimizer.register_step_pre_hook(self._note)

    def _note(self, optimizer: Any, *_: Any) -> None:
        self.rates.append({group["name"]: float(group["lr"]) for group in optimizer.param_groups})
        self.momenta.append({group["name"]: group.get("momentum") for group in optimizer.param_groups})

    def check(self, plan: ll.Plan, start: int = 0, updates: int | None = None) -> None:
        """Demand the plan's own numbers, exactly."""
        assert len(self.rates) == (plan.total_steps - start if updates is None else updates)
        for step, (rates, momenta) in enumerate(zip(self.rates, self.momenta, strict=True), start):
            assert rates == plan.lr(step), step
            for group, momentum in zip(plan.groups, plan.momenta(step), strict=True):
                assert momentum is None or momenta[group.name] == momentum, (step, group.name)

    def check_plateau(self, per_epoch: int = BATCHES) -> None:
        """Demand the halving after the second evaluation."""
        assert [rates["body"] for rates in self.rates] == [0.1] * (2 * per_epoch) + [0.05] * per_epoch


def make_plan(spec: ll.Spec, each: int = 1, model: Any = None) -> ll.Plan:
    updates = -(-BATCHES // each)
    return ll.resolve(spec, model or Net(), updates * EPOCHS, updates)


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def check_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []
