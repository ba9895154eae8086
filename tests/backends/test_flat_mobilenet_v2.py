"""OneFlow's MobileNetV2 of the library: matrix products instead of convolutions, and nothing else is different."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layered_lr.backend.loading import load_backend
from layered_lr.models import catalogue

SEED = 0
Pass = tuple[Any, dict[str, Any], dict[str, Any]]  # logits, gradients and buffers


@pytest.fixture
def start() -> dict[str, Any]:
    return catalogue.draw_initial_weights("mobilenet_v2", 10, SEED)


def batch(height: int, width: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(SEED)
    return rng.normal(size=(6, 3, height, width)), np.arange(6) % 10


def torch_pass(start: dict[str, Any], images: Any, labels: Any) -> Pass:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
    model.double().train()
    logits = model(torch.from_numpy(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    return (
        logits.detach().numpy(),
        {name: tensor.grad.numpy() for name, tensor in model.named_parameters()},
        {name: tensor.numpy() for name, tensor in model.named_buffers()},
    )


def oneflow_pass(model: Any, images: Any, labels: Any, dtype: str) -> Pass:
    from layered_lr_oneflow.runtime import flow

    model.train()
    logits = model(flow.tensor(images, dtype=getattr(flow, dtype)))
    flow.nn.functional.cross_entropy(logits, flow.tensor(labels)).backward()
    return (
        logits.numpy().copy(),
        {name: tensor.grad.numpy().copy() for name, tensor in model.named_parameters()},
        {name: tensor.numpy().copy() for name, tensor in model.named_buffers()},
    )


def built(start: dict[str, Any], dtype: Any) -> Any:
    backend = load_backend("oneflow-eager", "cpu")
    model = backend.build("mobilenet_v2", 10, 0.0, SEED, dtype)
    backend.load(model, start)
    return model


def largest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference, relative to the largest number of all: some gradients are 0 but for rounding."""
    assert one.keys() == other.keys()
    scale = max(float(np.abs(array).max()) for array in other.values())
    return max(float(np.abs(one[name] - other[name]).max()) for name in one) / scale


# Feature maps of one pixel, odd sizes, images that are not square, and a first map too large for one matrix.
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (33, 17), (40, 40)])
def test_outputs_and_gradients_are_torchs(oneflow: Any, start: dict[str, Any], height: int, width: int) -> None:
    """In float64; what is left is the epsilon and the momentum of normalisations, which OneFlow holds as float32."""
    images, labels = batch(height, width)
    ours, theirs = oneflow_pass(built(start, "float64"), images, labels, "float64"), torch_pass(start, images, labels)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-6)
    assert largest(ours[1], theirs[1]) < 1e-6
    assert largest(ours[2], theirs[2]) < 1e-6


def test_in_float32_it_is_as_near_as_flowvisions_own_modules(oneflow: Any, start: dict[str, Any]) -> None:
    flowvision = pytest.importorskip("flowvision")
    from layered_lr_oneflow import models as oneflow_models

    images, labels = batch(32, 32)
    own = flowvision.models.mobilenet_v2(num_classes=10)
    own.classifier[0].p = 0.0
    oneflow_models.load_state(own, start)
    exact = torch_pass(start, images, labels)
    ours, theirs = (oneflow_pass(model, images, labels, "float32") for model in (built(start, "float32"), own))
    assert largest(ours[1], exact[1]) < 3 * largest(theirs[1], exact[1])
    assert np.abs(ours[0] - exact[0]).max() < 3 * np.abs(theirs[0] - exact[0]).max()


def test_the_state_is_torchvisions(oneflow: Any, start: dict[str, Any]) -> None:
    model = built(start, "float32")
    assert list(model.state_dict()) == list(start)
    assert len(start) == 314


def test_a_model_of_the_users_own_keeps_its_convolutions(oneflow: Any) -> None:
    flowvision = pytest.importorskip("flowvision")
    made = load_backend("oneflow-eager", "cpu").build(flowvision.models.mobilenet_v2, 10, 0.0, SEED)
    assert {type(module).__module__.split(".")[0] for module in made.modules()} == {"flowvision", "oneflow"}


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ("flags\t: sse2 avx2 fma avx512f avx512dq avx512bw avx512vl", "SkylakeX"),
        ("processor\t: 0\nflags\t\t: sse2 avx2 fma avx512f", "Haswell"),
        ("flags\t: sse2 avx", None),
        ("Features\t: neon", None),
    ],
    ids=["avx512", "avx2", "sse", "no x86"],
)
def test_openblas_is_told_what_the_cpu_can_do(oneflow: Any, flags: str, kernels: str | None) -> None:
    from layered_lr_oneflow.runtime import choose_blas_kernels

    assert choose_blas_kernels(flags) == kernels
