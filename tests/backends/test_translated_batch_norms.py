"""Batch normalisations of torch models on OneFlow: where the mean is large beside the deviation, and of one number."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll

pytestmark = pytest.mark.usefixtures("torch", "oneflow")

IMAGES = (8, 3, 16, 16)
# Mean and deviation of each channel, and the shape.
BATCHES = {
    "usual": (0, 1, IMAGES),
    "10 and 0.01": (10, 0.01, IMAGES),
    "5 and 0.001": (5, 0.001, IMAGES),
    "200 and 0.1": (200, 0.1, IMAGES),
    "-30 and 0.05": (-30, 0.05, IMAGES),
    "a constant": (100.25, 0, IMAGES),
    "rows": (100, 0.05, (8, 3)),
    "series": (100, 0.05, (8, 3, 7)),
    "volumes": (100, 0.05, (4, 3, 4, 5, 6)),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without weights": {"affine": False},
    "without statistics": {"track_running_stats": False},
    "another momentum": {"momentum": 0.7},
}
# Some roundings of float32, beside the largest number. The float32 of torch itself is up to 1e-4 off here, because it
# normalises by a mean that is rounded.
CLOSE = 4e-6


def draw(mean: float, deviation: float, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return (mean + deviation * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def make_norm(torch: Any, axes: int, **options: Any) -> Any:
    kind = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[axes]
    made = torch.nn.Sequential(getattr(torch.nn, kind)(3, **options))
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return made


def compute_in_torch(torch: Any, norm: Any, x: NDArray[Any], weights: NDArray[Any], passes: int) -> list[NDArray[Any]]:
    """In float64: what it answers, the gradient, and the statistics."""
    exact = copy.deepcopy(norm).double().train()
    start = torch.tensor(x.astype(np.float64), requires_grad=True)
    for _ in range(passes):
        answer = exact(start)
    (answer * torch.tensor(weights.astype(np.float64))).sum().backward()
    statistics = [each.numpy() for name, each in exact.named_buffers() if "running" in name]
    return [answer.detach().numpy(), start.grad.numpy(), *statistics]


def assert_close(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BATCHES)
def test_a_large_mean_beside_a_small_deviation(torch: Any, oneflow: Any, name: str, form: str) -> None:
    mean, deviation, shape = BATCHES[name]
    x, weights = draw(mean, deviation, shape), draw(0, 1, shape, seed=1)
    norm = make_norm(torch, len(shape), **FORMS[form])
    model = ll.translate(norm, torch.tensor(x)).train()
    start = oneflow.tensor(x, requires_grad=True)
    for _ in range(2):
        answer = model(start)
    (answer * oneflow.tensor(weights)).sum().backward()
    statistics = [each.numpy() for name, each in model.named_buffers() if "running" in name]
    assert_close([answer.numpy(), start.grad.numpy(), *statistics], compute_in_torch(torch, norm, x, weights, 2))


def test_a_large_mean_in_a_graph(torch: Any, oneflow: Any) -> None:
    x, weights = draw(100, 0.05, IMAGES), draw(0, 1, IMAGES, seed=1)
    norm = make_norm(torch, 4)
    model = ll.translate(norm, torch.tensor(x)).train()

    class Graph(oneflow.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.add_optimizer(oneflow.optim.SGD([*model.parameters()], lr=0.0))

        def build(self, x: Any, weights: Any) -> Any:
            answer = self.model(x)
            (answer * weights).sum().backward()
            return answer

    graph = Graph()
    for _ in range(3):
        answer = graph(oneflow.tensor(x), oneflow.tensor(weights))
    oneflow._oneflow_internal.eager.Sync()
    expected, _, *theirs = compute_in_torch(torch, norm, x, weights, 3)
    ours = [each.numpy() for name, each in model.named_buffers() if "running" in name]
    assert_close([answer.numpy(), expected, *ours], [expected, expected, *theirs])


def test_a_mean_of_a_million_in_float64(torch: Any, oneflow: Any) -> None:
    x = 1e6 + 0.01 * np.random.default_rng(0).standard_normal(IMAGES)
    norm = make_norm(torch, 4).double()
    found = ll.translate(norm, torch.tensor(x)).train()(oneflow.tensor(x)).numpy()
    expected = norm(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # eps is held in float32


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_number_of_each_channel_has_no_variance(torch: Any, oneflow: Any, shape: tuple[int, ...]) -> None:
    norm = make_norm(torch, len(shape))
    model = ll.translate(norm, torch.zeros(4, *shape[1:])).train()
    with pytest.raises(ll.DataError, match=r"gets one number of each channel in training, in shape \(1, 3"):
        model(oneflow.zeros(*shape))
    assert model.eval()(oneflow.zeros(*shape)).numpy().shape == shape


def one_pixel_net() -> Any:
    import torch

    layers = torch.nn.Flatten(), torch.nn.Linear(192, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("backend", ["oneflow-eager", "oneflow-graph"])
def test_a_run_refuses_batches_of_one_number(backend: str) -> None:
    images, labels = np.zeros((7, 3, 8, 8), np.float32), np.arange(7) % 3
    given: dict[str, Any] = {"model": one_pixel_net, "data": (images, labels) * 2, "progress": False, "epochs": 1}
    with pytest.raises(ll.DataError, match="one number has no variance"):
        ll.run(ll.Spec(ll.SGD(0.1)), backend, **given, batch_size=1)
    if backend == "oneflow-eager":
        with pytest.raises(ll.SpecError, match=r"the batch normalisation '2' gets one number of each channel"):
            ll.run(ll.Spec(ll.SGD(0.1)), backend, **given, batch_size=3, drop_last=False)
    assert ll.run(ll.Spec(ll.SGD(0.1)), backend, **given, batch_size=3).losses.size == 2
