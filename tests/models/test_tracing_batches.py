"""Batches of other sizes than the example's: what holds for them, what gets a program of its own, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

torch = pytest.importorskip("torch")

from layered_lr.models.graph import ModelGraph  # noqa: E402
from layered_lr_torch.trace_model import trace_model  # noqa: E402


class Net(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.head, self.function, self.times = torch.nn.Linear(6, 6), function, 2

    def forward(self, x: Any) -> Any:
        return self.function(self.head(x)) * self.times


def trace(function: Callable[[Any], Any], images: int = 8) -> ModelGraph:
    return trace_model(Net(function), (np.zeros((images, 6), "float32"),))


def resize(graph: ModelGraph, images: int, mode: bool = False) -> ModelGraph | None:
    assert graph.resize is not None
    return graph.resize(images, mode)


def test_a_program_whose_sizes_follow_the_batch_holds_for_any() -> None:
    graph = trace(lambda x: x.view(x.shape[0], 2, 3).mean(1) @ x.mean(0)[:3])
    assert graph.training.images == {8, 16, 24} and graph.evaluation.images == {8, 16, 2}
    assert [resize(graph, images, mode) for images in (1, 5, 100) for mode in (True, False)] == [None] * 6


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[torch.arange(len(x))[:, None], torch.stack([x.argmax(1), x.argmin(1)], 1)],
        lambda x: x[torch.arange(len(x))[:, None], torch.tensor([0, 2])],
        lambda x: x * (torch.arange(len(x)).float() * 0.5 + 1)[:, None],
        lambda x: x.repeat(2, 1)[torch.arange(len(x)).repeat_interleave(2)],
        lambda x: x.view(-1, 2, 3)[torch.arange(len(x)), :, x[:, :3].argmax(1)],
    ],
    ids=["places of each", "fixed places of each", "halves", "each place twice", "axes apart"],
)
def test_what_goes_up_from_image_to_image_follows_the_batch(function: Callable[[Any], Any]) -> None:
    graph = trace(function)
    assert graph.training.only_images is None and resize(graph, 5) is None and resize(graph, 1, True) is None


def test_a_number_that_is_whole_for_some_sizes_alone_gives_each_its_own_program() -> None:
    graph = trace(lambda x: x * torch.tensor(len(x) ** 0.5), 16)
    assert resize(graph, 16) is None and resize(graph, 15) is not None and resize(graph, 9) is not None


@pytest.mark.parametrize("mode", [True, False])
def test_a_size_at_which_the_model_does_something_else_has_a_program_of_its_own(mode: bool) -> None:
    graph = trace(lambda x: x - x[:16].mean(0))
    assert resize(graph, 16, mode) is None
    own = resize(graph, 20, mode)
    assert own is not None and own.modes == (mode,)
    program = own.training if mode else own.evaluation
    assert program.only_images == 20 and program.nodes[1].operator == "slice"
    tried = own.trial.inputs if own.trial is not None else own.example[0]
    assert [len(array) for array in tried] == [20] and (own.trial is not None) == mode


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[torch.tensor([place * 5 % x.shape[0] for place in range(x.shape[0])])],
        lambda x: torch.stack([x[place] * place for place in range(x.shape[0])]),
    ],
    ids=["images in another order", "a loop over the images"],
)
def test_what_differs_at_each_size_is_traced_for_the_examples(function: Callable[[Any], Any]) -> None:
    graph = trace(function, 7)
    assert graph.training.only_images == graph.evaluation.only_images == 7
    assert [len(array) for array in (*graph.example[0], *graph.trial.inputs)] == [7, 7]  # type: ignore[union-attr]
    assert resize(graph, 7) is None and resize(graph, 9) is not None


def test_a_model_is_tried_with_a_number_of_images_that_it_takes() -> None:
    def halve(x: Any) -> Any:
        assert len(x) > 3
        return x.reshape(4, -1, 6).sum(0)

    assert [len(array) for array in trace(halve).example[0]] == [4]
    alone = trace(lambda x: x.reshape(1, 6), 1)
    assert [len(array) for array in alone.example[0]] == [1] and alone.training.only_images == 1


def test_a_size_that_the_model_does_not_take_is_refused_when_it_comes() -> None:
    graph = trace(lambda x: x - x[3])
    with pytest.raises(ll.SpecError, match=r"of shape \(3, 6\), in the model itself.*out of bounds.* drop_last=True"):
        resize(graph, 3)
    assert resize(graph, 4) is None


def test_one_number_of_each_channel_is_refused_when_it_comes() -> None:
    graph = trace_model(torch.nn.BatchNorm1d(6), (np.zeros((8, 6), "float32"),))
    with pytest.raises(ll.DataError, match=r"one number of each channel in training, in shape \(1, 6\)"):
        resize(graph, 1, True)
    assert resize(graph, 1) is None


def test_a_model_that_was_changed_since_is_refused_where_it_has_to_be_traced_again() -> None:
    net = Net(lambda x: x - x[:16].mean(0))
    graph = trace_model(net, (np.zeros((8, 6), "float32"),))
    net.times = 3
    for images in (5, 20):
        with pytest.raises(ll.SpecError, match=f"for a batch of {images} images .*was changed since it was translated"):
            resize(graph, images)
    net.times = 2
    own = resize(graph, 20)
    assert resize(graph, 5) is None and own is not None and own.evaluation.nodes[-1].arguments["y"] == 2
