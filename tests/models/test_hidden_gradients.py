"""What a trace has to see beside torch's functions: gradients of the user's own, errors that a model catches itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")

from layered_lr_torch.trace_model import trace_loss, trace_model  # noqa: E402
from tests.support.operator_networks import SHAPE, around  # noqa: E402

X = np.zeros(SHAPE, "float32")
F = torch.nn.functional


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return -gradient


class Unchanged(Reversed):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x


reverse = Reversed.apply
leave = Unchanged.apply


def by_default(net: Any, x: Any, function: Callable[[Any], Any] = Reversed.apply) -> Any:
    return function(x)


class Table:
    function = staticmethod(Reversed.apply)


def halved(x: Any) -> Any:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 0.5, lambda saved: saved):
        return x * x


def hooked(x: Any, register: str) -> Any:
    y = x * 2
    getattr(y.grad_fn, register)(lambda *gradients: None)
    return y


def hooked_if_it_trains(net: Any, x: Any) -> Any:
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * 0.2)
    return x


def hooked_at_many(net: Any, x: Any) -> Any:
    y = x * 2
    torch.autograd.graph.register_multi_grad_hook((y,), lambda gradients: None)
    return y


def penalised(net: Any, x: Any) -> Any:
    y = x.detach().requires_grad_()
    return x + torch.autograd.grad(y.square().sum(), y)[0]


def checked(net: Any, x: Any) -> Any:
    try:
        if net.training and not bool(x.isfinite().all()):
            raise ValueError
    except Exception:
        return x * 0
    return x


def decomposed(net: Any, x: Any) -> Any:
    try:
        return x * torch.linalg.svdvals(x).mean()
    except Exception:
        return x


def frozen(net: Any, x: Any) -> Any:
    net.before.requires_grad_(False)
    return x


OWN = "torch's own gradients only"
REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a function by another name": (lambda net, x: reverse(x), "uses Reversed, an autograd.Function"),
    "a function that changes nothing": (lambda net, x: leave(x) * 2, "uses Unchanged, an autograd.Function"),
    "a function as a default": (by_default, "uses Reversed, an autograd.Function"),
    "a function of a class": (lambda net, x: Table.function(x), "uses Reversed, an autograd.Function"),
    "a hook of a result that trains": (hooked_if_it_trains, "calls register_hook"),
    "a hook of a layer's": (lambda net, x: hooked_if_it_trains(net, F.layer_norm(x, (8,))), "calls register_hook"),
    "a hook of a node": (lambda net, x: hooked(x, "register_hook"), rf"grad_fn of a tensor \(register_hook\).*{OWN}"),
    "a hook before a node": (lambda net, x: hooked(x, "register_prehook"), rf"grad_fn of a tensor.*{OWN}"),
    "a hook of many": (hooked_at_many, "calls register_hook"),
    "a hook on what is saved": (lambda net, x: halved(x), f"calls saved_tensors_hooks.*{OWN}"),
    "a gradient in the pass": (penalised, f"calls grad.*{OWN}"),
    "an error that is caught": (checked, "depend on what is in a tensor"),
    "a refusal that is caught": (decomposed, "calls linalg_svdvals"),
    "numbers one by one": (lambda net, x: x + x.detach().clone().apply_(lambda each: each * 2), "calls apply"),
    "pairs one by one": (lambda net, x: x + x.detach().clone().map_(x, lambda one, other: one), "calls map"),
    "an address": (lambda net, x: x if x.data_ptr() % 2 else x * 2, "calls data_ptr"),
    "an array": (lambda net, x: x + torch.as_tensor(np.asarray(x.detach())), "calls array"),
    "a layer that is made": (
        lambda net, x: torch.nn.LayerNorm(8)(x),
        "makes a parameter in its forward pass.*__init__",
    ),
    "a layer that is copied": (lambda net, x: copy.deepcopy(net.before)(x), r"calls deepcopy.*in __init__"),
    "a parameter that is frozen": (frozen, r"sets requires_grad of '1\.before\.weight'.*phases"),
    "a map over images": (lambda net, x: torch.vmap(torch.sin)(x), r"torch\.func \(vmap"),
    "a gradient by a transform": (
        lambda net, x: x + torch.func.grad(lambda y: y.square().sum())(x.detach()),
        r"torch\.func \(vmap, grad",
    ),
    "a whole division": (lambda net, x: x + x // 0.3, "through floor_divide, whose derivative torch does not have"),
    "a whole division in place": (lambda net, x: (x * 1).floor_divide_(0.3), "through floor_divide, whose derivative"),
    "what a number leaves": (lambda net, x: x + 1 % (x + 9), "through remainder, whose derivative"),
    "what a number leaves, by name": (
        lambda net, x: torch.remainder(1.0, x + 9),
        "through remainder, whose derivative",
    ),
}


def trace(forward: Callable[[Any, Any], Any]) -> Any:
    return trace_model(torch.nn.Sequential(torch.nn.Identity(), around(forward)()), (X,))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_a_trace_would_lose_is_refused(name: str) -> None:
    forward, why = REFUSED[name]
    with pytest.raises(ll.Unsupported, match=why) as refused:
        trace(forward)
    assert "test_hidden_gradients.py" in str(refused.value) and "module '1'" in str(refused.value)


def with_fallback(net: Any, x: Any) -> Any:
    try:
        return x.view(-1, 7)
    except RuntimeError:  # torch raises it too
        return x * 2


def on_the_cpu(net: Any, x: Any) -> Any:
    with torch.autograd.graph.save_on_cpu():
        return x * 2


@torch.no_grad()
def reversed_without_gradient(net: Any, x: Any) -> Any:
    return reverse(x) * net.scale


ALLOWED: dict[str, Callable[[Any, Any], Any]] = {
    "an error of torch's own": with_fallback,
    "what torch itself saves": on_the_cpu,
    "a result that has a node": lambda net, x: x * 2 if x.grad_fn is not None and x.requires_grad else x + 1,
    "a gradient that is asked for": lambda net, x: x.requires_grad_() * 2,
    "a whole division without gradient": lambda net, x: x * 2 + (x // 0.3).detach(),
    "a whole division of an input": lambda net, x: x * 2 + X.size // 3 % 5,
    "a function without gradient": lambda net, x: x * 2 + reversed_without_gradient(net, x),
    "what is compiled": lambda net, x: torch.compile(lambda y: y * 2)(x),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_has_torchs_gradients_is_translated(name: str) -> None:
    assert "mul" in [node.operator for node in trace(ALLOWED[name]).training.nodes]


def test_a_function_that_torch_has_compiled_runs_as_written() -> None:
    twice = torch.compile(lambda x: x * 2)
    assert [node.operator for node in trace(lambda net, x: twice(x)).training.nodes] == ["conv", "mul"]


@pytest.fixture(params=["register_module_forward_hook", "register_module_forward_pre_hook",
                        "register_module_full_backward_hook", "register_module_full_backward_pre_hook"])  # fmt: skip
def hook_of_all_modules(request: pytest.FixtureRequest) -> Iterator[None]:
    handle = getattr(torch.nn.modules.module, request.param)(lambda *_: None)
    yield
    handle.remove()


def test_a_hook_on_all_modules_is_refused(hook_of_all_modules: None) -> None:
    with pytest.raises(ll.Unsupported, match="a hook on all modules"):
        trace(lambda net, x: x)


def reversing(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(reverse(outputs), targets)


def hooking(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(hooked_if_it_trains(None, outputs), targets)


def penalising(outputs: Any, targets: Any) -> Any:
    loss = F.cross_entropy(outputs, targets)
    return loss + torch.autograd.grad(loss, outputs, create_graph=True)[0].sum() if outputs.requires_grad else loss


@pytest.mark.parametrize(
    ("loss", "why"),
    [(reversing, "uses Reversed"), (hooking, "calls register_hook"), (penalising, "calls grad")],
)
def test_a_loss_with_gradients_of_its_own_is_refused(loss: Any, why: str) -> None:
    with pytest.raises(ll.Unsupported, match=why):
        trace_loss(loss, np.zeros((4, 3), "float32"), np.zeros(4, "int64"))


def test_a_loss_that_asks_whether_its_outputs_have_a_gradient_is_refused() -> None:
    """It trained with the number of evaluation."""

    def weighted(outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(outputs, targets) * (3.0 if outputs.requires_grad and not outputs.is_leaf else 1.0)

    with pytest.raises(ll.Unsupported, match="computes something else where its outputs have no gradient"):
        trace_loss(weighted, np.zeros((4, 3), "float32"), np.zeros(4, "int64"))


def test_only_the_gradient_of_the_outputs_is_tried_of_a_loss() -> None:
    """That of the targets may be NaN, such as of the logarithm of a negative number, and nothing uses it."""

    def divergence(outputs: Any, targets: Any) -> Any:
        return F.kl_div(outputs.log_softmax(1), targets, reduction="batchmean")

    shares = np.full((4, 3), 1 / 3, "float32")
    trial = trace_loss(divergence, np.zeros((4, 3), "float32"), shares).trial
    assert trial is not None and list(trial.wanted.gradients) == ["input 0"]
    assert np.isfinite(trial.wanted.gradients["input 0"]).any()
