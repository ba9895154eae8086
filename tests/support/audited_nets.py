"""Small networks with the parts that recipes treat in their own ways; torch is imported when one is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def convolutional() -> Any:
    """``stem``, ``body`` (both with batch normalisation) and ``head``."""
    from torch import nn

    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
    net.add_module("body", nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(4, 3))
    return net


def transformer() -> Any:
    """``embed``, ``blocks.0``, ``blocks.1``, ``norm`` and ``head``, with layer normalisation."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(8)
            self.mlp = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return x + self.mlp(self.norm1(x))

    net = nn.Sequential()
    net.add_module("embed", nn.Linear(8, 8))
    net.add_module("blocks", nn.Sequential(Block(), Block()))
    net.add_module("norm", nn.LayerNorm(8))
    net.add_module("head", nn.Linear(8, 3))
    return net


def perceptron() -> Any:
    """``body`` and ``head``, without normalisation."""
    from torch import nn

    net = nn.Sequential()
    net.add_module("body", nn.Linear(8, 8))
    net.add_module("head", nn.Linear(8, 3))
    return net


def inputs_of(net: Any) -> Any:
    """A batch for a network."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 8, 8) if hasattr(net, "pool") else (2, 8)
    return torch.randn(shape, generator=generator)


def freeze(*modules: Any) -> None:
    """As tutorials do it."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad = False


def make_updates(net: Any, optimizer: Any, scheduler: Any = None, count: int = 3) -> None:
    """A few updates of a loop."""
    for _ in range(count):
        optimizer.zero_grad()
        net(inputs_of(net)).sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def decay_groups(net: Any, decay: float, is_free: Callable[[str, Any], bool]) -> list[dict[str, Any]]:
    """Two groups: those that decay, and those that do not."""
    named = [(name, each) for name, each in net.named_parameters() if each.requires_grad]
    return [
        {"params": [each for name, each in named if not is_free(name, each)], "weight_decay": decay},
        {"params": [each for name, each in named if is_free(name, each)], "weight_decay": 0.0},
    ]


def one_dimensional(name: str, tensor: Any) -> bool:
    """timm's and nanoGPT's rule."""
    return bool(tensor.ndim <= 1)


def layered_groups(parts: Sequence[Any], lr: float, decay: float) -> list[dict[str, Any]]:
    """A group for each part, the last one at the full rate."""
    last = len(parts) - 1
    return [{"params": list(part.parameters()), "lr": lr * decay ** (last - depth)} for depth, part in enumerate(parts)]


def scaled_groups(parts: Sequence[Any], decay: float) -> list[dict[str, Any]]:
    """timm's groups: the rate is the optimizer's, and ``lr_scale`` is for whoever sets rates."""
    last = len(parts) - 1
    return [
        {"params": list(part.parameters()), "lr_scale": decay ** (last - depth)} for depth, part in enumerate(parts)
    ]


class TimmLike:
    """A scheduler as timm's: not torch's class; it multiplies by ``lr_scale`` after the schedule."""

    def __init__(self, optimizer: Any, t_initial: int, lr_min: float = 0.0, warmup_t: int = 0) -> None:
        self.optimizer, self.t_initial, self.lr_min, self.warmup_t = optimizer, t_initial, lr_min, warmup_t
        self.t_in_epochs = True
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.base_values = [group["initial_lr"] for group in optimizer.param_groups]
        self.step(0)

    def step(self, epoch: int, metric: float | None = None) -> None:
        import math

        for group, base in zip(self.optimizer.param_groups, self.base_values, strict=False):
            if epoch < self.warmup_t:
                rate = base * epoch / self.warmup_t
            else:
                part = min(epoch / self.t_initial, 1.0)
                rate = self.lr_min + 0.5 * (base - self.lr_min) * (1 + math.cos(math.pi * part))
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """Counts epochs, so that updates do nothing."""
