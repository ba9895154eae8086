"""Models that change something besides buffers in a pass, or by a switch of the mode: refused before any update."""

from __future__ import annotations

import array
import collections
import fractions
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")

from layered_lr_torch.trace_model import trace_model  # noqa: E402

X = np.zeros((2, 3), "float32")


class Slots:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def count_up(counter: Any) -> int:
    counter.count += 1
    return int(counter.count)


def count_in(counts: Any, key: Any) -> int:
    counts[key] += 1
    return int(counts[key])


def count_by_default(net: Any, counts: list[int] = [0]) -> int:  # noqa: B006
    return count_in(counts, 0)


def replace(net: Any, made: Any) -> Any:
    net.kept = made
    return made


COUNTERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "an object in a list": (lambda: [Slots()], lambda net: count_up(net.kept[0])),
    "an object in a tuple": (lambda: (Slots(),), lambda net: count_up(net.kept[0])),
    "an object with slots": (Slots, lambda net: count_up(net.kept)),
    "a list in a list": (lambda: [[0]], lambda net: count_in(net.kept[0], 0)),
    "a dictionary in a list": (lambda: [{"count": 0}], lambda net: count_in(net.kept[0], "count")),
    "an array in a list": (lambda: [np.zeros(1)], lambda net: count_in(net.kept[0], 0)),
    "a tensor in a list": (lambda: [torch.zeros(1)], lambda net: count_in(net.kept[0], 0)),
    "an array of Python's": (lambda: array.array("l", [0]), lambda net: count_in(net.kept, 0)),
    "bytes": (lambda: bytearray(1), lambda net: count_in(net.kept, 0)),
    "another kind of dictionary": (lambda: collections.UserDict(a=0), lambda net: count_in(net.kept, "a")),
    "an iterator": (itertools.count, lambda net: next(net.kept)),
    "a string": (str, lambda net: len(replace(net, net.kept + "a"))),
    "a tuple": (tuple, lambda net: len(replace(net, (*net.kept, 1)))),
    "a number of NumPy": (lambda: np.int64(0), lambda net: replace(net, net.kept + 1)),
    "a fraction": (lambda: fractions.Fraction(0), lambda net: replace(net, net.kept + 1)),
    "a default": (lambda: None, count_by_default),
}


class Counts(torch.nn.Module):
    """Counts its passes by a function, and answers otherwise from the hundredth on."""

    def __init__(self, kept: Any, count: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale, self.kept, self.count = torch.nn.Parameter(torch.ones(3)), kept, count

    def forward(self, x: Any) -> Any:
        return x * self.scale if self.count(self) < 100 else x


@pytest.mark.parametrize("name", COUNTERS)
def test_a_count_that_cannot_be_followed_is_refused(name: str) -> None:
    make, count = COUNTERS[name]
    with pytest.raises(ll.Unsupported, match=r"changes '(kept|count_by_default: defaults)' each time, so that a later"):
        trace_model(Counts(make(), count), (X,))


def test_a_count_in_an_attribute_of_a_function_is_seen() -> None:
    def count(net: Any) -> int:
        count.passes = getattr(count, "passes", 0) + 1  # type: ignore[attr-defined]
        return int(count.passes)  # type: ignore[attr-defined]

    with pytest.raises(ll.Unsupported, match=r"reads it too \('function .*count\.passes'\)"):
        trace_model(Counts(None, count), (X,))


class KeepsWhatItSaw(torch.nn.Module):
    """Keeps sizes, activations and messages of the last pass, which nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.last: Any = None
        self.all: list[Any] = [(0, 0), "made"]
        self.settings = (Slots(), {"a": [1]})

    def forward(self, x: Any) -> Any:
        y = x * self.scale
        self.last = (y, x.shape, f"{x.dim()} axes", (torch.arange(3), torch.ones(2)))
        self.all.append((x.shape, y))
        return y


def test_what_is_the_same_after_each_pass_is_harmless() -> None:
    net = KeepsWhatItSaw()
    graph = trace_model(net, (X,))
    assert [node.operator for node in graph.training.nodes] == ["mul"]
    assert net.last is None and net.all == [(0, 0), "made"]


class Changes(torch.nn.Module):
    """Does something to its own parts in each pass."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.change, self.scale = change, torch.nn.Parameter(torch.ones(3))
        self.register_buffer("empty", None)
        self.register_buffer("full", torch.ones(3))
        self.a, self.b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        self.change(self)
        return self.b(self.a(x)) * self.scale


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda net: setattr(net, "empty", net.full * 2), "makes buffer 'empty'"),
        (lambda net: net.register_buffer("late", net.full * 2), "makes buffer 'late'"),
        (lambda net: setattr(net, "full", None), "takes away buffer 'full'"),
        (lambda net: net.__delattr__("full"), "takes away buffer 'full'"),
        (lambda net: setattr(net, "scale", torch.nn.Parameter(torch.ones(3))), "replaces parameter 'scale'"),
        (lambda net: setattr(net.b, "weight", net.a.weight), "replaces parameter 'b.weight'"),
        (lambda net: setattr(net, "late", torch.nn.Parameter(torch.ones(3))), "makes parameter 'late'"),
        (lambda net: setattr(net, "b", net.a), "replaces module 'b'"),
        (lambda net: setattr(net, "late", net.a), "makes module 'late'"),
    ],
)
def test_parts_that_a_pass_changes_are_refused(change: Callable[[Any], Any], said: str) -> None:
    net = Changes(change)
    names = {name for name, _ in (*net.named_parameters(), *net.named_buffers())}
    with pytest.raises(ll.Unsupported, match=f"its forward pass ({said})"):
        trace_model(net, (X,))
    assert {name for name, _ in (*net.named_parameters(), *net.named_buffers())} == names


class Switches(torch.nn.Module):
    """Does something when its mode is switched."""

    def __init__(self, switch: Callable[[Any, bool], Any]) -> None:
        super().__init__()
        self.scale, self.low, self.high = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("wide", torch.zeros(1).expand(3))  # cannot be written to
        self.switch, self.temperature, self.merged, self.table = switch, 1.0, False, None
        torch.nn.init.zeros_(self.low)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.switch(self, mode)
        return self

    def forward(self, x: Any) -> Any:
        return x * (self.scale if self.merged else self.scale + self.low * self.high) * self.temperature + self.mean


def merge(net: Any, mode: bool) -> None:
    if mode == net.merged:
        net.scale.data += (net.low * net.high).data * (-1 if mode else 1)
        net.merged = not mode


SWITCHES: dict[str, tuple[Callable[[Any, bool], Any], str]] = {
    "cools": (lambda net, mode: setattr(net, "temperature", net.temperature / 2), "temperature"),
    "merges": (merge, "scale"),
    "clamps": (lambda net, mode: net.scale.data.clamp_(0.1, 0.2), "scale"),
    "forgets": (lambda net, mode: net.mean.zero_(), "mean"),
    "keeps from the first time on": (
        lambda net, mode: mode or hasattr(net, "kept") or setattr(net, "kept", net.scale.detach() * 2),
        "kept",
    ),
    "keeps": (lambda net, mode: setattr(net, "table", None if mode else net.scale.detach() * 2), "table"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_that_does_more_than_to_switch_is_refused(name: str) -> None:
    switch, changed = SWITCHES[name]
    net = torch.nn.Sequential(torch.nn.Identity(), Switches(switch))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ll.Unsupported, match=rf"its train\(\) or eval\(\) changes '1\.{changed}'"):
        trace_model(net, (X,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training and net[1].temperature == 1.0 and not net[1].merged and net[1].table is None


def test_a_switch_that_follows_the_mode_is_translated() -> None:
    """Of a fixed part of the model, and of a setting that each mode has."""

    def switch(net: Any, mode: bool) -> None:
        net.temperature = 2.0 if mode else 4.0

    graph = trace_model(Switches(switch), (X,))
    factors = [
        next(float(node.arguments["y"]) for node in program.nodes if isinstance(node.arguments.get("y"), float))
        for program in (graph.training, graph.evaluation)
    ]
    assert factors == [2.0, 4.0]


class Seeds(torch.nn.Module):
    def __init__(self, seed: Callable[[], Any]) -> None:
        super().__init__()
        self.scale, self.seed = torch.nn.Parameter(torch.ones(3)), seed

    def forward(self, x: Any) -> Any:
        self.seed()
        return torch.nn.functional.dropout(x * self.scale, 0.5, self.training)


def seed_a_fork() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)


@pytest.mark.parametrize(
    "seed",
    [
        lambda: torch.manual_seed(0),
        seed_a_fork,
        lambda: torch.seed(),
        lambda: torch.default_generator.manual_seed(0),
        lambda: torch.set_rng_state(torch.get_rng_state()),
    ],
)
def test_a_pass_that_seeds_is_refused(seed: Callable[[], Any]) -> None:
    """Each pass of torch would draw the same numbers."""
    generator = torch.default_generator
    with pytest.raises(ll.Unsupported, match="seeds torch's generator of random numbers, or sets its state"):
        trace_model(Seeds(seed), (X,))
    assert torch.default_generator is generator is torch.random.default_generator
