"""Which buffers a forward pass copies, because a backward pass may compute with what they held before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from layered_lr_oneflow.overwritten_buffers import find_needed_backwards, list_written  # noqa: E402
from layered_lr_torch.trace_model import trace_model  # noqa: E402
from tests.support.operator_networks import Small  # noqa: E402


class Net(torch.nn.Module):
    def __init__(self, use: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.before, self.use = torch.nn.Linear(4, 4), use
        self.register_buffer("kept", torch.ones(4))
        self.register_buffer("places", torch.arange(4))

    def forward(self, x: Any) -> Any:
        made = self.use(self, self.before(x))
        if self.training:
            self.kept, self.places = self.kept * 0.5, self.places.flip(0)
        return made


USES: dict[str, tuple[Callable[[Any, Any], Any], set[str]]] = {
    "a factor": (lambda net, x: x * net.kept, {"kept"}),
    "a view": (lambda net, x: x * net.kept.view(2, 2).flip(0).reshape(4).detach(), {"kept"}),
    "what is computed of it": (lambda net, x: x * (net.kept + 1), set()),
    "places": (lambda net, x: x.index_select(1, net.places), {"places"}),
    "without gradient": (lambda net, x: (x, x.detach() * net.kept), set()),
    "nothing": (lambda net, x: x, set()),
}


@pytest.mark.parametrize("name", USES)
def test_what_a_backward_pass_needs_is_copied(name: str) -> None:
    use, needed = USES[name]
    graph = trace_model(Net(use), (np.zeros((2, 4), "float32"),))
    written = list_written(graph.training, graph.evaluation)
    assert written == {"kept", "places"}
    for program in (graph.training, graph.evaluation):  # another pass may write between this one and its backward pass
        assert find_needed_backwards(program, written) == needed


def test_batch_normalisations_copy_nothing() -> None:
    graph = trace_model(Small(), (np.zeros((2, 3, 8, 8), "float32"),))
    written = list_written(graph.training)
    assert written == {"b.num_batches_tracked"} and not find_needed_backwards(graph.training, written)
