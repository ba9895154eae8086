"""What cannot be translated is refused when it is traced: what, in which module, in which line, what to do."""

from __future__ import annotations

import random
import time
import warnings
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")

from layered_lr.models.graph import BatchSized, Held, Result  # noqa: E402
from layered_lr_torch.trace_model import prepare_traced, trace_model  # noqa: E402
from tests.support.operator_networks import SHAPE, Small, around  # noqa: E402

X = np.zeros(SHAPE, "float32")
OF_THE_FILE = random.Random(5)


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.abs()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient


def in_place_of_a_parameter(net: Any, x: Any) -> Any:
    with torch.no_grad():
        net.scale.mul_(0.5)
    return x * net.scale


def stale(net: Any, x: Any) -> Any:
    y = x * 2
    z = y.view(x.shape[0], -1)
    z.add_(1)
    return y * 2


def counting(net: Any, x: Any) -> Any:
    net.calls = getattr(net, "calls", 0) + 1
    return x * net.calls


def counting_in_a_list(net: Any, x: Any) -> Any:
    net.__dict__.setdefault("seen", []).append(1)
    return x * len(net.seen)


CALLS = [0]


def counting_elsewhere(net: Any, x: Any) -> Any:
    CALLS[0] += 1
    return x * CALLS[0]


def keeping(net: Any, x: Any) -> Any:
    before = getattr(net, "before_this", None)
    net.before_this = x.detach()
    return x if before is None else x + before.mean()


def keeping_the_first(net: Any, x: Any) -> Any:
    if getattr(net, "first", None) is None:
        net.first = net.scale.detach().sum()
    return x * net.first


def cast_within(net: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x


def without_versions(net: Any, x: Any) -> Any:
    with torch.inference_mode():
        return x * net.scale.sum()


def recurrent(net: Any, x: Any, steps: int, dropout: float) -> Any:
    layers = 2 if dropout else 1
    sequence = x.flatten(1).repeat(1, 2)[:, :steps].unsqueeze(-1)
    start, weights = torch.zeros(layers, x.shape[0], 1), [net.gamma.reshape(1, 1)] * 2 * layers
    return torch.rnn_tanh(sequence, start, weights, False, layers, dropout, True, False, True)[0]


def data_in_place(net: Any, x: Any) -> Any:
    if net.training:
        x.data.clamp_(-0.5, 0.5)
    return x


def places_twice(net: Any, x: Any) -> Any:
    y = x * 1
    y[:, [0, 0]] = x[:, :2]
    return y


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a branch on numbers": (lambda net, x: x if x.sum() > 0 else -x, "depend on what is in a tensor"),
    "a number": (lambda net, x: x * x.mean().item(), "depend on what is in a tensor|calls item"),
    "places of numbers": (lambda net, x: x[x > 0], "depend on what is in a tensor"),
    "an unknown function": (lambda net, x: torch.fft.fft(x).abs(), "calls fft_fft"),
    "a draw": (lambda net, x: x + torch.randn_like(x), "calls randn_like"),
    "Python's draw": (lambda net, x: x * random.random(), "Python's or NumPy's generator"),
    "NumPy's draw": (lambda net, x: x * float(np.random.rand()), "Python's or NumPy's generator"),
    "Python's draw of its own": (lambda net, x: x if net.own[0].random() < 2 else -x, "draws from a Random of its own"),
    "NumPy's draw of its own": (lambda net, x: x if net.own[1].random() < 2 else -x, "draws from a Generator of its"),
    "NumPy's draw of old": (lambda net, x: x if net.own[2].rand() < 2 else -x, "draws from a RandomState of its own"),
    "a state of its own": (lambda net, x: net.own[3].seed() and x, "draws from a Generator of its own"),
    "a gradient of its own": (lambda net, x: OwnGradient.apply(x), "OwnGradient"),
    "a hook": (lambda net, x: x.register_hook(lambda g: g * 2) and x, "calls register_hook"),
    "a parameter in place": (in_place_of_a_parameter, "changes '1.scale' in place"),
    "memory of two": (stale, "memory was changed through another"),
    "the clock": (lambda net, x: x * time.perf_counter(), "does other things each time that it is called"),
    "indices of a pool": (
        lambda net, x: torch.nn.functional.max_pool2d(x, 2, return_indices=True)[0],
        "calls max_pool2d_with_indices",
    ),
    "no batch axis": (lambda net, x: torch.nn.functional.avg_pool2d(x[:, 0], 2), "without a batch axis"),
    "a counter": (counting, "changes an attribute or a variable"),
    "a counter in a list": (counting_in_a_list, "changes an attribute or a variable"),
    "a counter elsewhere": (counting_elsewhere, "changes an attribute or a variable"),
    "a kept tensor": (keeping, "changes an attribute or a variable"),
    "a kept weight": (keeping_the_first, "changes an attribute or a variable"),
    "autocast": (cast_within, "under torch.autocast"),
    "no versions": (without_versions, r"in torch\.inference_mode.*Use torch\.no_grad"),
    "other bits": (lambda net, x: x.view(torch.int32), "takes the bits"),
    "a diagonal": (lambda net, x: torch.einsum("ncii->nc", x), "an axis twice"),
    "a norm of matrices": (lambda net, x: torch.linalg.norm(x[0, 0], 1), "calls linalg_norm"),
    "a long product": (lambda net, x: x.flatten(1).prod(1), r"prod of 256 numbers \(64 are the most\)"),
    "a long sequence": (lambda net, x: recurrent(net, x, 257, 0.0), r"over 257 steps \(256 are the most\)"),
    "dropout between layers": (lambda net, x: recurrent(net, x, 3, 0.5), r"\(dropout=0.5\).*torch.nn.Dropout between"),
    "out= of another shape": (lambda net, x: torch.add(x, 1, out=torch.empty(1)), "with out="),
    "data in place": (data_in_place, r"changes a tensor through its \.data"),
    "places twice": (places_twice, r"calls setitem_.*x\[:, 2:4\]"),
    "bits of whole numbers": (lambda net, x: x * ((x * 4).long() & 3), r"the bits of whole numbers \(and\)"),
    "bits of a whole number": (lambda net, x: x * ((x > 0) | 2), r"the bits of whole numbers \(or\)"),
    "other bits of whole numbers": (lambda net, x: x * ~(x * 4).int(), r"the bits of whole numbers \(not\)"),
    "bits in place": (lambda net, x: x * (x * 4).int().bitwise_xor_(1), r"the bits of whole numbers \(xor\)"),
    "powers of whole numbers": (lambda net, x: x + 2 ** (x * 4).long().abs(), "whole numbers to powers that are in a"),
    "halves": (lambda net, x: (x.half() * 2).float(), "computes in float16"),
    "short numbers": (lambda net, x: x * (x * 4).to(torch.int16), "computes in int16"),
    "a constant of short numbers": (
        lambda net, x: torch.where(x > 0, torch.arange(8).short(), torch.arange(8).short()) * x,
        "computes in int16",
    ),
    "nothing, in a product": (
        lambda net, x: x @ x[..., :0] @ x[:, :, :0],
        "matmul of a tensor with an axis of length 0",
    ),
    "nothing, in softmax": (lambda net, x: torch.cat((x, x[:, :0].softmax(1)), 1), "softmax of a tensor with an axis"),
    "nothing, in any": (lambda net, x: x * (x[:, :0] > 0).any(1, keepdim=True), "with an axis of length 0"),
    "nothing, in a maximum": (lambda net, x: torch.cat((x[:, :0].amax(2), x.amax(2)), 1), "amax of a tensor with"),
    "nothing, drawn": (lambda net, x: torch.cat((x, torch.rand(x.shape[0], 0, 8, 8)), 1), "uniform of a tensor with"),
    "indices of an adaptive pool": (
        lambda net, x: torch.nn.functional.adaptive_max_pool2d(x, 2, return_indices=True)[1] * 2,
        "uses the indices that adaptive_max_pool2d gives",
    ),
    "a compiled function": (lambda net, x: torch.jit.script(doubled)(x), "a function that torch.jit has compiled"),
    "an order": (lambda net, x: x.topk(2, 1).values, "calls topk, in .*Write it with other functions"),
    "draws in place": (lambda net, x: x + x.new_empty(8).uniform_(), r"calls uniform_.*torch\.rand"),
}


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def with_own_generators(net: Any) -> Any:
    net.own = [random.Random(7), np.random.default_rng(1), np.random.RandomState(2), torch.Generator()]
    return net


def states_of(generators: Any) -> list[str]:
    return [
        str(generators[0].getstate()),
        str(generators[1].bit_generator.state),
        str(generators[2].get_state()[1:3]),
        str(generators[3].get_state().tolist()),
    ]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_translated_is_refused(name: str) -> None:
    forward, why = REFUSED[name]
    with pytest.raises(ll.Unsupported, match=why) as refused:
        trace_model(torch.nn.Sequential(torch.nn.Identity(), with_own_generators(around(forward)())), (X,))
    message = str(refused.value)
    assert "test_tracing.py" in message or "generator" in message
    assert "'1'" in message or "OwnGradient" in message


def test_an_answer_that_holds_no_tensors_for_a_graph_is_refused() -> None:
    with pytest.raises(ll.Unsupported, match=r"returns a SimpleNamespace, in .*Return tensors: one, or several"):
        trace_model(around(lambda net, x: SimpleNamespace(logits=x))(), (X,))


@pytest.mark.parametrize("draw", [lambda own: own[0].random(), lambda own: own[1].random(), lambda own: own[2].rand()])
def test_a_generator_of_the_models_own_is_put_back(draw: Callable[[Any], float]) -> None:
    net = with_own_generators(around(lambda net, x: x if draw(net.own) < 2 else -x)())
    before, of_python, of_numpy = states_of(net.own), random.getstate(), np.random.get_state()[2]
    with pytest.raises(ll.Unsupported, match="draws from"):
        trace_model(net, (X,))
    assert states_of(net.own) == before and random.getstate() == of_python and np.random.get_state()[2] == of_numpy


class Collecting(torch.nn.Module):
    """Collects something anew in each pass, and reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.made: list[Any] = [0]
        self.last: deque[Any] = deque([None], maxlen=3)
        self.by_name: dict[str, Any] = {}
        self.count, self.sums, self.tensor = 7, np.zeros(2), torch.zeros(2)

    def forward(self, x: Any) -> Any:
        self.made.clear()
        self.last.clear()
        self.by_name.clear()
        self.sums[:] = 0
        self.tensor.zero_()
        self.count = 0
        for factor in (0.5, 2.0):
            self.made.append(x * self.scale * factor)
            self.last.append(self.made[-1] + 1)
            self.by_name[str(factor)] = self.last[-1] * 2
            self.count += 1
            self.sums += factor
            self.tensor += factor
        whole = torch.cat(self.made) if len(self.made) == self.count and self.sums[0] > 2 and self.tensor[0] > 2 else x
        return whole.sum() + sum(self.last) + self.by_name["2.0"]


def test_what_is_collected_anew_in_each_pass_may_be_read() -> None:
    net = Collecting()
    graph = trace_model(net, (X,))
    assert "cat" in [node.operator for node in graph.training.nodes]
    assert net.made == [0] and list(net.last) == [None] and net.by_name == {} and net.count == 7


class Settings:
    """An object of the user's."""

    def __init__(self) -> None:
        self.count, self.seen = 0, {"count": 0}


class Counting(torch.nn.Module):
    """Counts its passes in many ways, and lets a function look at the counts."""

    def __init__(self, look: Callable[[Any], bool], in_training: bool = False) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.look, self.in_training = look, in_training
        self.count, self.mean, self.list, self.last, self.set = 0, 0.0, [0], deque([1], maxlen=50), {"0"}
        self.settings, self.table, self.space = Settings(), {"count": 0}, SimpleNamespace(count=0)
        self.tensor, self.array = torch.zeros(()), np.zeros(2)

    def forward(self, x: Any) -> Any:
        if self.training or not self.in_training:
            self.count += 1
            self.mean = 0.5 * self.mean + self.count / 2
            self.list.append(self.list[-1] + 1)
            self.last.append(x.shape)
            self.set.add(str(self.count))
            self.settings.count += 1
            self.settings.seen["count"] += 1
            self.table["count"] += 1
            self.space.count += 1
            self.tensor += 1
            self.array += 1
            self.array[0] += 1
        return x * self.scale if self.look(self) else x


READS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "a number": (lambda net: net.count > 10, "count"),
    "a number made of it": (lambda net: 2 * net.count - 1 >= 20, "count"),
    "its remainder": (lambda net: not net.count % 100, "count"),
    "a fraction": (lambda net: net.mean > 1000, "mean"),
    "the length of a list": (lambda net: len(net.list) > 10, "list"),
    "a number in a list": (lambda net: net.list[-1] > 10, "list"),
    "the length of a deque": (lambda net: len(net.last) > 10, "last"),
    "what is in a set": (lambda net: "22" in net.set, "set"),
    "a number of an object": (lambda net: net.settings.count == 11, "settings.count"),
    "a number in a table of an object": (lambda net: net.settings.seen["count"] > 10, "settings.seen.count"),
    "a number in a table": (lambda net: net.table["count"] > 10, "table.count"),
    "a number of a namespace": (lambda net: net.space.count > 10, "space.count"),
    "a number in an array": (lambda net: net.array[0] > 10, "array"),
    "an array": (lambda net: bool((net.array[:1] + 1 > 10).all()), "array"),
    "a plain tensor": (lambda net: bool(net.tensor > 10), "tensor"),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("in_training", [False, True])
def test_a_count_of_passes_that_is_read_is_refused(name: str, in_training: bool) -> None:
    look, path = READS[name]
    net = Counting(look, in_training)
    with pytest.raises(ll.Unsupported, match=rf"each time, and reads it too \('1\.{path}'\)"):
        trace_model(torch.nn.Sequential(torch.nn.Identity(), net), (X,))
    assert net.count == 0 and net.settings.count == net.space.count == net.table["count"] == 0
    assert net.list == [0] and net.settings.seen == {"count": 0} and float(net.tensor) == 0 and type(net.count) is int


@pytest.mark.parametrize("look", [lambda net: True, lambda net: bool(f"{net.count} {net.mean:.1f} {net.tensor.shape}")])
def test_a_count_of_passes_that_is_not_read_is_harmless(look: Callable[[Any], bool]) -> None:
    net = Counting(look)
    graph = trace_model(net, (X,))
    assert [node.operator for node in graph.training.nodes] == ["mul"] and net.count == 0 and len(net.last) == 1


PASSES = 0
LAST: Any = None


class Scaling(torch.nn.Module):
    """Scales its inputs; what a subclass answers instead depends on how many passes there were."""

    passes = 0

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.count = 0

    def forward(self, x: Any) -> Any:
        return x * self.scale


class CountsInItsClass(Scaling):
    def forward(self, x: Any) -> Any:
        type(self).passes += 1
        return x * self.scale if CountsInItsClass.passes < 100 else x


class CountsInItsFile(Scaling):
    def forward(self, x: Any) -> Any:
        return x * self.scale if self.count_passes() < 100 else x

    def count_passes(self) -> int:
        global PASSES
        PASSES += 1
        return PASSES


class CountsAtALowLevel(Scaling):
    def forward(self, x: Any) -> Any:
        self.count += 1
        for _ in range(self.count // 100):
            x = x * 2
        return x * self.scale


class KeepsInItsFile(Scaling):
    def forward(self, x: Any) -> Any:
        global LAST
        if LAST is None:
            LAST = self.scale.detach() * 2
        return x * LAST * self.scale


def counting_in_a_closure() -> Scaling:
    passes = 0

    class Counts(Scaling):
        def forward(self, x: Any) -> Any:
            nonlocal passes
            passes += 1
            return x * self.scale if passes < 100 else x

    return Counts()


def counting_in_a_hook() -> torch.nn.Module:
    passes = [0]

    def count(module: Any, inputs: Any, output: Any) -> Any:
        passes[0] += 1
        return output if passes[0] < 100 else output * 2

    net = torch.nn.Sequential(Scaling())
    net[0].register_forward_hook(count)
    return net


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (CountsInItsClass, r"reads it too \('class CountsInItsClass\.passes'\)"),
        (CountsInItsFile, r"reads it too \('.*test_tracing\.PASSES'\)"),
        (counting_in_a_closure, r"reads it too \('counting_in_a_closure.*: passes'\)"),
        (counting_in_a_hook, r"reads it too \('counting_in_a_hook.*: passes'\)"),
        (CountsAtALowLevel, "computes something else another time"),
        (KeepsInItsFile, "computes something else another time"),
    ],
)
def test_what_passes_leave_outside_of_the_modules_is_seen(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ll.Unsupported, match=said):
        trace_model(make(), (X,))
    assert PASSES == 0 and LAST is None and "passes" not in vars(CountsInItsClass)


class CountsUnread(Scaling):
    seen: ClassVar[list[int]] = []

    def forward(self, x: Any) -> Any:
        global PASSES
        PASSES += 1
        type(self).passes += 1
        self.seen.append(self.passes)
        return x * self.scale


def test_what_passes_count_outside_of_the_modules_unread_is_harmless() -> None:
    graph = trace_model(CountsUnread(), (X,))
    assert [node.operator for node in graph.training.nodes] == ["mul"]
    assert PASSES == 0 and CountsUnread.seen == [] and "passes" not in vars(CountsUnread)


def test_a_generator_of_the_file_in_which_a_class_stands_is_watched() -> None:
    state = OF_THE_FILE.getstate()
    with pytest.raises(ll.Unsupported, match="draws from a Random of its own"):
        trace_model(Counting(lambda net: OF_THE_FILE.random() < 2), (X,))
    assert OF_THE_FILE.getstate() == state


class Pair(torch.nn.Module):
    """Two layers, and a function of them; a function before it lets them share memory."""

    def __init__(self, share: Callable[[Any], Any], use: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.a, self.b, self.use = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False), use
        share(self)

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x)) + self.use(self, x)


def of_data(view: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda net: setattr(net.b, "weight", torch.nn.Parameter(view(net.a.weight.data)))


def two_buffers(net: Any) -> None:
    net.register_buffer("first", torch.zeros(8))
    net.register_buffer("second", net.first[:4])


def buffer_and_part(net: Any) -> None:
    net.register_buffer("first", torch.zeros(8))
    net.plain = net.first[:]


def count_first(net: Any, x: Any) -> Any:
    x = x * net.second.sum()
    net.first += 1
    return x


def count_plain(net: Any, x: Any) -> Any:
    net.first += 1
    return x * net.plain


SHARING: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any], str]] = {
    "the same numbers": (of_data(lambda data: data), lambda net, x: x, "'a.weight' and 'b.weight' are two"),
    "transposed": (of_data(lambda data: data.t()), lambda net, x: x, "share memory"),
    "a part": (of_data(lambda data: data[2:]), lambda net, x: x, "share memory"),
    "a buffer": (
        lambda net: net.register_buffer("w", net.a.weight.detach()), lambda net, x: x @ net.w, "share memory"
    ),
    "a plain tensor": (
        lambda net: setattr(net, "w", net.a.weight.detach()), lambda net, x: x @ net.w, "shares memory with 'a.weight'"
    ),
    "what is computed of a plain tensor": (
        lambda net: setattr(net, "w", [net.a.weight.detach()[1]]),
        lambda net, x: x * (net.w[0] * 2).exp(),
        "shares memory with 'a.weight'",
    ),
    "an array": (
        lambda net: setattr(net, "w", net.a.weight.detach().numpy()),
        lambda net, x: x @ torch.from_numpy(net.w),
        "shares memory with 'a.weight'",
    ),
    "a buffer that changes": (two_buffers, count_first, "'second' and 'first' are two tensors that share memory"),
    "a plain part of a buffer that changes": (buffer_and_part, count_plain, "changes 'first', whose memory another"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARING)
def test_tensors_that_share_memory_are_refused(name: str) -> None:
    share, use, why = SHARING[name]
    with pytest.raises(ll.Unsupported, match=why):
        trace_model(Pair(share, use), (X,))


def test_memory_that_is_shared_is_found_before_a_model_is_cast() -> None:
    with pytest.raises(ll.Unsupported, match="share memory"):
        prepare_traced(Pair(of_data(lambda data: data), lambda net, x: x), "float64")


def test_memory_that_is_shared_without_harm_is_taken() -> None:
    def tie(net: Any) -> None:
        net.b.weight = net.a.weight
        net.again = net.a
        whole = torch.zeros(2, 8)
        net.c, net.d = torch.nn.Parameter(whole[0]), torch.nn.Parameter(whole[1])
        two_buffers(net)
        net.held, net.plain, net.table = [net.a.weight], net.a.weight.detach(), torch.ones(8)

    def use(net: Any, x: Any) -> Any:
        return x * net.second.sum() @ net.held[0] * net.table * net.plain.shape[0]

    graph = trace_model(Pair(tie, use), (X,))
    assert [tensor.alias_of for tensor in graph.tensors if tensor.name == "b.weight"] == ["a.weight"]


def make_encoder(**settings: Any) -> Any:
    """A TransformerEncoder over sequences of four channels, each of which is a place of 64 numbers."""
    layer = torch.nn.TransformerEncoderLayer(64, 2, 8, dropout=0.0, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 1, **settings)


def hide_the_last(x: Any) -> Any:
    return (torch.arange(4) >= 3).expand(x.shape[0], 4)


class Growing(torch.nn.Module):
    """A table that is made at the first batch, as some models of timm have it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1, 1), persistent=False)

    def forward(self, x: Any) -> Any:
        if self.table.shape[1] != x.shape[1]:
            self.table = torch.arange(x.shape[1]).float()[None]
        return x.mean((2, 3)) + self.table


def test_a_table_that_is_made_at_the_first_batch_is_there_after_it() -> None:
    net = Growing()
    with pytest.raises(ll.Unsupported, match=r"buffer 'table' another shape, \(1, 4\) for \(1, 1\).* once where it is"):
        trace_model(net, (X,))
    net(torch.from_numpy(X))
    assert not trace_model(net, (X,)).training.writes


class Replacing(torch.nn.Module):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale, self.make = torch.nn.Parameter(torch.ones(4)), make
        self.register_buffer("count", torch.zeros(4, dtype=torch.long))
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, x: Any) -> Any:
        self.make(self)
        return x.mean((2, 3)) * self.scale * self.kept


REPLACING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another dtype": (
        lambda net: setattr(net, "count", net.count + 0.5), "'count' another dtype, float32 for int64.* with that dtype"
    ),
    "a parameter's memory": (
        lambda net: setattr(net, "kept", net.scale.detach()), "into buffer 'kept' the memory of 'scale'.* copy"
    ),
    "a view": (lambda net: net.kept.view(2, 2).add_(1), r"changes 'kept' in place \(add_\) through a view of it"),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLACING)
def test_what_a_buffer_of_oneflow_cannot_become_is_refused(name: str) -> None:
    make, why = REPLACING[name]
    with pytest.raises(ll.Unsupported, match=why):
        trace_model(Replacing(make), (X,))


def test_a_buffer_that_is_handed_on_as_it_is_remains_a_buffer() -> None:
    """A function may have it from elsewhere than from the module, whose buffers are others during the trace."""
    net = Replacing(lambda net: None)
    kept = net.kept
    net.forward = lambda x: (x * net.scale.sum(), kept)
    assert trace_model(net, (X,)).training.output.parts[1] == Held("kept")


REFUSED_PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any], str]] = {
    "statistics twice": (
        lambda: torch.nn.BatchNorm2d(4),
        lambda net, x: torch.utils.checkpoint.checkpoint(net.part, x, use_reentrant=False),
        r"under torch\.utils\.checkpoint, which updates .* twice|_NoopSaveInputs",  # the latter is torch 2.4's own
    ),
    "statistics of all batches": (
        lambda: torch.nn.BatchNorm2d(4, momentum=None),
        lambda net, x: net.part(x),
        r"momentum=None.*such as 0\.1",
    ),
    "statistics of images": (
        lambda: torch.nn.InstanceNorm2d(4, track_running_stats=True),
        lambda net, x: net.part(x),
        "track_running_stats=True",
    ),
    "gradients by frequency": (
        lambda: torch.nn.Embedding(3, 8, scale_grad_by_freq=True),
        lambda net, x: net.part((x[..., 0] > 0).long()),
        "an embedding with scale_grad_by_freq=True, which changes its gradient.*Leave that out",
    ),
    "sparse gradients": (
        lambda: torch.nn.Embedding(3, 8, sparse=True),
        lambda net, x: net.part((x[..., 0] > 0).long()),
        "an embedding with sparse=True",
    ),
    "projected outputs": (
        lambda: torch.nn.LSTM(8, 6, proj_size=2, batch_first=True),
        lambda net, x: net.part(x[:, 0])[0],
        r"an LSTM with proj_size.*torch\.nn\.Linear",
    ),
    "packed sequences": (
        lambda: torch.nn.GRU(8, 6),
        lambda net, x: (
            net.part(torch.nn.utils.rnn.PackedSequence(x[:, 0].flatten(0, 1), torch.tensor([6] * 8)))[0].data
        ),
        "packed sequences.*Pad them to one length",
    ),
    "nested tensors": (
        lambda: make_encoder(),
        lambda net, x: net.part(x.flatten(2), src_key_padding_mask=hide_the_last(x)),
        "TransformerEncoder with a padding mask.*enable_nested_tensor=False",
    ),
    "nested tensors by place": (
        lambda: make_encoder(),
        lambda net, x: net.part(x.flatten(2), None, hide_the_last(x)),
        "TransformerEncoder with a padding mask.*enable_nested_tensor=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED_PARTS)
@pytest.mark.filterwarnings("ignore")
def test_a_part_that_cannot_be_translated_is_refused(name: str) -> None:
    make, forward, why = REFUSED_PARTS[name]
    with pytest.raises(ll.Unsupported, match=why) as refused:
        trace_model(around(forward, part=make)(), (X,))
    assert "test_tracing.py" in str(refused.value)
    assert "'part'" in str(refused.value) or "_NoopSaveInputs" in str(refused.value)


def test_a_dict_has_names_for_keys() -> None:
    with pytest.raises(ll.Unsupported, match="returns a dict with the key 0"):
        trace_model(around(lambda net, x: {0: x})(), (X,))


def test_what_holds_other_numbers_is_refused() -> None:
    for model, example, why in (
        (around(lambda net, x: x)().half(), X, "'scale' is float16; OneFlow backends take float32"),
        (around(lambda net, x: x)(), X.astype("int16"), "input 0 is int16; OneFlow backends take float32"),
    ):
        with pytest.raises(ll.Unsupported, match=why):
            trace_model(model, (example,))


@pytest.mark.parametrize(
    "copy",
    [
        lambda x: x.repeat(1, 1, 1, 1),
        lambda x: x.tile(1),
        lambda x: x.repeat_interleave(1, 1),
        lambda x: torch.nn.functional.pixel_shuffle(x, 1),
        lambda x: torch.nn.functional.channel_shuffle(x, 1),
    ],
)
def test_what_is_a_copy_in_torch_may_be_changed(copy: Callable[[Any], Any]) -> None:
    def forward(net: Any, x: Any) -> Any:
        y = copy(x)
        y += 1
        return x * y

    graph = trace_model(around(forward)(), (X,))
    *_, added, multiplied = graph.evaluation.nodes
    assert (added.operator, multiplied.operator) == ("add", "mul")
    assert multiplied.arguments["x"] != multiplied.arguments["y"] == Result(added.name)


def test_what_nothing_needs_may_have_no_numbers() -> None:
    graph = trace_model(around(lambda net, x: (x[:, :0].softmax(1), x.half(), torch.cat((x[:, :0], x), 1))[2])(), (X,))
    assert [node.operator for node in graph.evaluation.nodes] == ["conv", "slice", "cat"]


def test_a_model_that_takes_whole_multiples_of_images_is_tried_with_the_examples_number() -> None:
    def folded(net: Any, x: Any) -> Any:
        return x.view(x.shape[0] // 3, 3, *x.shape[1:]).roll(1, 1).view(x.shape)

    graph = trace_model(around(folded)(), (X,))
    assert [len(array) for array in graph.example[1]] == [6]


def test_a_model_that_fails_on_such_images_is_a_spec_error() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 2))
    with pytest.raises(ll.SpecError, match=r"fails on inputs of shape \(6, 4, 8, 8\), in module '1'.*\[7, 2\]"):
        trace_model(model, (X,))


def test_a_compiled_module_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch would rather have torch.export
        scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(8, 8)))
    with pytest.raises(ll.Unsupported, match="module '0' is compiled by torch"):
        trace_model(torch.nn.Sequential(scripted), (X,))


def test_tracing_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(1)
    model = Small(0.3)
    model.drop.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    trace_model(model, (np.zeros((2, 3, 8, 8), "float32"),))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state()) and model.training and not model.drop.training
    assert all(type(tensor) is torch.nn.Parameter for tensor in model.parameters())
    assert not model.a._forward_hooks and not model.a._forward_pre_hooks


def test_hooks_on_gradients_are_refused() -> None:
    for hook, where in (
        (lambda net: net.head.register_full_backward_hook(lambda *_: None), "module 'head'"),
        (lambda net: net.a.register_full_backward_pre_hook(lambda *_: None), "module 'a'"),
        (lambda net: net.head.weight.register_hook(lambda gradient: gradient * 2), "parameter 'head.weight'"),
        (lambda net: net.a.weight.register_post_accumulate_grad_hook(lambda _: None), "parameter 'a.weight'"),
    ):
        net = Small()
        hook(net)
        with pytest.raises(ll.Unsupported, match=f"model: {where} has a hook on its gradients"):
            trace_model(net, (np.zeros((2, 3, 8, 8), "float32"),))


def test_tracing_puts_back_what_a_pass_changes_in_place() -> None:
    class Changing(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor(0))
            self.plain, self.seen, self.names = torch.ones(3), [1], {"a": 1}
            self.table, self.fixed, self.kinds = np.zeros(2), np.zeros(2), {1}
            self.fixed.flags.writeable = False

        def forward(self, x: Any) -> Any:
            self.count += 1
            self.plain += 1
            self.seen.append(2)
            self.names["b"] = 3
            self.table += 1
            self.kinds.add(2)
            return super().forward(x)

    model = Changing()
    trace_model(model, (np.zeros((2, 3, 8, 8), "float32"),))
    assert int(model.count) == 0 and model.plain.tolist() == [1, 1, 1]
    assert model.seen == [1] and model.names == {"a": 1} and model.kinds == {1} and model.table.tolist() == [0, 0]


class KeepsInEvaluation(torch.nn.Module):
    """Computes its table from a weight once for evaluation, as LeViT does with its attention biases."""

    def __init__(self, drops: bool) -> None:
        super().__init__()
        self.weight, self.drops = torch.nn.Parameter(torch.ones(3)), drops
        self.kept: dict[str, Any] = {}

    def train(self, mode: bool = True) -> Any:
        if mode and self.drops:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: Any) -> Any:
        if self.training:
            return x * self.weight.exp()
        if "table" not in self.kept:
            self.kept["table"] = self.weight.exp()
        return x * self.kept["table"]


def test_what_evaluation_keeps_of_the_weights_has_to_go_before_they_change() -> None:
    model = KeepsInEvaluation(drops=True)
    graph = trace_model(model, (np.zeros((2, 3), "float32"),))
    assert [node.operator for node in graph.evaluation.nodes] == ["exp", "mul"] and model.kept == {}
    with pytest.raises(ll.Unsupported, match="changes an attribute or a variable"):
        trace_model(KeepsInEvaluation(drops=False), (np.zeros((2, 3), "float32"),))


def test_tracing_leaves_functions_with_gradients_of_their_own_as_they_were() -> None:
    trace_model(Small(), (np.zeros((2, 3, 8, 8), "float32"),))
    assert torch.equal(OwnGradient.apply(torch.tensor([-2.0])), torch.tensor([2.0]))


def test_a_model_that_fails_is_left_as_it_was() -> None:
    model = Small()
    with pytest.raises(ll.SpecError):
        trace_model(model, (np.zeros((2, 5, 8, 8), "float32"),))
    assert all(type(tensor) is torch.nn.Parameter for tensor in model.parameters()) and not model.a._forward_hooks


def test_a_model_with_an_eval_of_its_own_is_traced_in_it() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 1.0

        def train(self, mode: bool = True) -> Any:
            self.factor = 1.0
            return super().train(mode)

        def eval(self) -> Any:
            super().eval()
            self.factor = 0.25
            return self

        def forward(self, x: Any) -> Any:
            return x * self.factor

    graph = trace_model(Scaled(), (X,))
    assert [program.nodes[0].arguments["y"] for program in (graph.training, graph.evaluation)] == [1.0, 0.25]


def test_sizes_follow_the_batch_and_operators_the_mode() -> None:
    graph = trace_model(Small(0.3), (np.zeros((2, 3, 8, 8), "float32"),))
    first = graph.training.nodes[0]
    assert first.operator == "conv" and first.shape == (BatchSized(1, 1, 0), 6, 8, 8) and first.module == "a"
    switches = [node for node in graph.training.nodes if "training" in node.arguments]
    assert [node.operator for node in switches] == ["batch_norm", "dropout", "dropout"]
    assert all(node.follows_mode for node in switches)
    assert [write.name for write in graph.training.writes] == ["b.num_batches_tracked"]
    assert graph.training.writes[0].follows_mode and not graph.evaluation.writes


def test_a_dropout_that_is_always_on_stays_on() -> None:
    graph = trace_model(around(lambda net, x: torch.nn.functional.dropout(x, 0.5))(), (X,))
    (node,) = (node for node in graph.evaluation.nodes if node.operator == "dropout")
    assert node.arguments["training"] is True and not node.follows_mode
