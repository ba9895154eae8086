"""What cannot be translated is refused when it is traced: what, in which module, in which line, what to do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")

from layered_lr.models.graph import BatchSized  # noqa: E402
from layered_lr_torch.trace_model import trace_model  # noqa: E402
from tests.support.operator_networks import SHAPE, Small, around  # noqa: E402

X = np.zeros(SHAPE, "float32")


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


def by_image(net: Any, x: Any) -> Any:
    return torch.stack([x[i] * i for i in range(x.shape[0])])


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a branch on numbers": (lambda net, x: x if x.sum() > 0 else -x, "depend on what is in a tensor"),
    "a number": (lambda net, x: x * x.mean().item(), "depend on what is in a tensor|calls item"),
    "places of numbers": (lambda net, x: x[x > 0], "depend on what is in a tensor"),
    "an unknown function": (lambda net, x: torch.fft.fft(x).abs(), "calls fft_fft"),
    "a draw": (lambda net, x: x + torch.randn_like(x), "calls randn_like"),
    "Python's draw": (lambda net, x: x * random.random(), "Python's or NumPy's generator"),
    "NumPy's draw": (lambda net, x: x * float(np.random.rand()), "Python's or NumPy's generator"),
    "a gradient of its own": (lambda net, x: OwnGradient.apply(x), "OwnGradient"),
    "a hook": (lambda net, x: x.register_hook(lambda g: g * 2) and x, "calls register_hook"),
    "a parameter in place": (in_place_of_a_parameter, "changes '1.scale' in place"),
    "memory of two": (stale, "memory was changed through another"),
    "each image": (by_image, "for a batch of another size"),
    "indices of a pool": (
        lambda net, x: torch.nn.functional.max_pool2d(x, 2, return_indices=True)[0],
        "calls max_pool2d_with_indices",
    ),
    "no batch axis": (lambda net, x: torch.nn.functional.avg_pool2d(x[:, 0], 2), "without a batch axis"),
    "out=": (lambda net, x: torch.add(x, 1, out=torch.empty_like(x)), "with out="),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_translated_is_refused(name: str) -> None:
    forward, why = REFUSED[name]
    with pytest.raises(ll.Unsupported, match=why) as refused:
        trace_model(torch.nn.Sequential(torch.nn.Identity(), around(forward)()), (X,))
    message = str(refused.value)
    assert "test_tracing.py" in message or "generator" in message
    assert "'1'" in message or "OwnGradient" in message


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


def test_tracing_leaves_functions_with_gradients_of_their_own_as_they_were() -> None:
    trace_model(Small(), (np.zeros((2, 3, 8, 8), "float32"),))
    assert torch.equal(OwnGradient.apply(torch.tensor([-2.0])), torch.tensor([2.0]))


def test_a_model_that_fails_is_left_as_it_was() -> None:
    model = Small()
    with pytest.raises(ll.SpecError):
        trace_model(model, (np.zeros((2, 5, 8, 8), "float32"),))
    assert all(type(tensor) is torch.nn.Parameter for tensor in model.parameters()) and not model.a._forward_hooks


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
