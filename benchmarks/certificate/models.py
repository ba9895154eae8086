"""Small models of a dozen kinds, each written once for torch and OneFlow, with the same names and shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

CLASSES, CHANNELS, PIXELS = 4, 3, 8

Build = Callable[[Any, Any], Any]
"""Takes a framework's ``nn`` and the framework; returns a module."""


def convolution(nn: Any, lib: Any, bias: bool, norm: Callable[[int], Any]) -> Any:
    """Two convolutions, each before a normalisation."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(CHANNELS, 8, 3, 2, 1, bias=bias)
            self.n1 = norm(8)
            self.c2 = nn.Conv2d(8, 16, 3, 1, 1, bias=bias)
            self.n2 = norm(16)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x: Any) -> Any:
            x = lib.relu(self.n1(self.c1(x)))
            x = lib.relu(self.n2(self.c2(x)))
            return self.head(x.mean(dim=[2, 3]))

    return Net()


def with_bias(nn: Any, lib: Any) -> Any:
    """Biases before batch normalisations: their gradient is zero but for rounding."""
    return convolution(nn, lib, True, nn.BatchNorm2d)


def without_bias(nn: Any, lib: Any) -> Any:
    """The usual convolution before a batch normalisation."""
    return convolution(nn, lib, False, nn.BatchNorm2d)


def group_norm(nn: Any, lib: Any) -> Any:
    """Group normalisation."""
    return convolution(nn, lib, True, lambda channels: nn.GroupNorm(4, channels))


def attention(nn: Any, lib: Any) -> Any:
    """Rows as tokens, layer normalisation, one head of attention."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Linear(CHANNELS * PIXELS, 16)
            self.norm = nn.LayerNorm(16)
            self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
            self.out = nn.Linear(16, 16)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.tokens(x.permute(0, 2, 1, 3).reshape(-1, PIXELS, CHANNELS * PIXELS))
            y = self.norm(x)
            weights = lib.softmax(lib.matmul(self.q(y), self.k(y).transpose(1, 2)) * 0.25, dim=-1)
            x = x + self.out(lib.matmul(weights, self.v(y)))
            return self.head(x.mean(dim=1))

    return Net()


def depthwise(nn: Any, lib: Any) -> Any:
    """A depthwise convolution between two of 1 x 1."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.expand = nn.Conv2d(CHANNELS, 12, 1, bias=False)
            self.n1 = nn.BatchNorm2d(12)
            self.depth = nn.Conv2d(12, 12, 3, 2, 1, groups=12, bias=False)
            self.n2 = nn.BatchNorm2d(12)
            self.head = nn.Linear(12, CLASSES)

        def forward(self, x: Any) -> Any:
            x = lib.relu(self.n1(self.expand(x)))
            return self.head(lib.relu(self.n2(self.depth(x))).mean(dim=[2, 3]))

    return Net()


def residual(nn: Any, lib: Any) -> Any:
    """Two blocks with a path around each."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(CHANNELS, 8, 3, 2, 1, bias=False)
            self.n0 = nn.BatchNorm2d(8)
            for block in (1, 2):
                setattr(self, f"c{block}", nn.Conv2d(8, 8, 3, 1, 1, bias=False))
                setattr(self, f"n{block}", nn.BatchNorm2d(8))
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Any) -> Any:
            x = lib.relu(self.n0(self.stem(x)))
            x = lib.relu(x + self.n1(self.c1(x)))
            x = lib.relu(x + self.n2(self.c2(x)))
            return self.head(x.mean(dim=[2, 3]))

    return Net()


def deep(nn: Any, lib: Any) -> Any:
    """Ten layers without any normalisation."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            sizes = [CHANNELS * PIXELS * PIXELS, *[24] * 9]
            for place, (before, after) in enumerate(itertools.pairwise(sizes)):
                setattr(self, f"l{place}", nn.Linear(before, after))
            self.head = nn.Linear(24, CLASSES)

        def forward(self, x: Any) -> Any:
            x = x.reshape(x.shape[0], CHANNELS * PIXELS * PIXELS)
            for place in range(9):
                x = lib.relu(getattr(self, f"l{place}")(x))
            return self.head(x)

    return Net()


def recurrence(nn: Any, lib: Any) -> Any:
    """A recurrent cell over the rows of the image."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(CHANNELS * PIXELS, 16)
            self.again = nn.Linear(16, 16, bias=False)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x: Any) -> Any:
            rows = self.enter(x.permute(0, 2, 1, 3).reshape(-1, PIXELS, CHANNELS * PIXELS))
            state = lib.tanh(rows[:, 0])
            for place in range(1, PIXELS):
                state = lib.tanh(rows[:, place] + self.again(state))
            return self.head(state)

    return Net()


def embedding(nn: Any, lib: Any) -> Any:
    """Pixels as words of a small vocabulary."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(16, 12)
            self.mix = nn.Linear(12, 12)
            self.head = nn.Linear(12, CLASSES)

        def forward(self, x: Any) -> Any:
            words = (x[:, 0] * 4 + 8).clamp(0, 15).long().reshape(-1, PIXELS * PIXELS)
            return self.head(lib.tanh(self.mix(self.words(words))).mean(dim=1))

    return Net()


def tied(nn: Any, lib: Any) -> Any:
    """One weight in two layers."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(CHANNELS * PIXELS * PIXELS, 16)
            self.a = nn.Linear(16, 16)
            self.b = nn.Linear(16, 16)
            self.b.weight = self.a.weight
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x: Any) -> Any:
            x = lib.tanh(self.enter(x.reshape(x.shape[0], CHANNELS * PIXELS * PIXELS)))
            return self.head(lib.tanh(self.b(lib.tanh(self.a(x)))))

    return Net()


def auxiliary(nn: Any, lib: Any) -> Any:
    """A second head, which counts in training alone."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(CHANNELS, 8, 3, 2, 1)
            self.n1 = nn.BatchNorm2d(8)
            self.c2 = nn.Conv2d(8, 8, 3, 1, 1)
            self.aux = nn.Linear(8, CLASSES)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Any) -> Any:
            early = lib.relu(self.n1(self.c1(x)))
            answer = self.head(lib.relu(self.c2(early)).mean(dim=[2, 3]))
            return answer + 0.3 * self.aux(early.mean(dim=[2, 3])) if self.training else answer

    return Net()


def pooled(nn: Any, lib: Any) -> Any:
    """Max pooling, and a batch normalisation behind a linear layer."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(CHANNELS, 8, 3, 1, 1)
            self.pool = nn.MaxPool2d(2)
            self.l1 = nn.Linear(8 * 16, 16)
            self.n1 = nn.BatchNorm1d(16)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.pool(lib.relu(self.c1(x)))
            return self.head(lib.relu(self.n1(self.l1(x.reshape(x.shape[0], 8 * 16)))))

    return Net()


def squeezed(nn: Any, lib: Any) -> Any:
    """Squeeze and excitation, then attention between the pixels, with operators that each framework names otherwise."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(CHANNELS, 12, 3, 2, 1, bias=False)
            self.n1 = nn.BatchNorm2d(12)
            self.squeeze = nn.Conv2d(12, 4, 1)
            self.excite = nn.Conv2d(4, 12, 1)
            self.norm = nn.LayerNorm(12)
            self.attend = nn.MultiheadAttention(12, 2, batch_first=True)
            self.head = nn.Linear(12, CLASSES)

        def forward(self, x: Any) -> Any:
            x = nn.functional.hardswish(self.n1(self.c1(x)))
            pooled = nn.functional.adaptive_avg_pool2d(x, 1)
            x = x * lib.sigmoid(self.excite(nn.functional.relu(self.squeeze(pooled))))
            tokens = self.norm(x.flatten(2).transpose(1, 2))
            return self.head((tokens + self.attend(tokens, tokens, tokens)[0]).mean(dim=1))

    return Net()


TRANSLATED = "a translated model"
KINDS: dict[str, Build | None] = {
    "convolution with bias before BatchNorm": with_bias,
    "convolution without bias before BatchNorm": without_bias,
    "GroupNorm": group_norm,
    "attention with LayerNorm": attention,
    "depthwise": depthwise,
    "residual": residual,
    "deep, without normalisation": deep,
    "recurrence": recurrence,
    "embedding": embedding,
    "tied weights": tied,
    "auxiliary head": auxiliary,
    "max pooling, BatchNorm1d": pooled,
    TRANSLATED: squeezed,
    "MobileNetV2": None,
}
"""By name; None is the library's own model by name, and the translated one is written in torch alone."""


def builder(kind: str, framework: str) -> Any:
    """What ``RunOptions.model`` takes for a kind of model and a framework."""
    build = KINDS[kind]
    if build is None:
        return "mobilenet_v2"

    def make() -> Any:
        import importlib

        library = importlib.import_module("torch" if kind == TRANSLATED else framework)
        return build(library.nn, library)

    return make
