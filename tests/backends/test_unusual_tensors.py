"""Models with masks of -inf, complex numbers, extra state, shared memory: trained whole, or refused at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.data import Batches, Dataset
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays
from tests.support.resuming import assert_same

SPEC = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("body", name="body", lr_scale=0.5)])


def masked(framework: Any) -> Any:
    """The answer goes through a mask of -inf, a buffer as causal attention has it."""
    above = np.triu(np.full((CLASSES, CLASSES), -np.inf, np.float32), 1)

    class Masked(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", framework.tensor(above))
            self.body = framework.nn.Linear(FEATURES, CLASSES * CLASSES)
            self.head = framework.nn.Linear(CLASSES, CLASSES)

        def forward(self, images: Any) -> Any:
            scores = self.body(images.flatten(1)).reshape(-1, CLASSES, CLASSES) + self.mask
            return self.head(framework.softmax(scores, dim=-1).mean(1))

    return Masked()


def options(backend: str, model: Any, **other: Any) -> dict[str, Any]:
    usual = {"backend": backend, "model": model, "data": arrays(), "epochs": 3, "batch_size": 8, "progress": False}
    return {**usual, "device": "cpu", **other}


def test_a_mask_of_infinity(backend: Backend, framework_of_backend: Any, tmp_path: Path) -> None:
    def made() -> Any:
        return masked(framework_of_backend)

    spec = ll.Spec(SPEC.optimizer, SPEC.groups, phases=[ll.Phase("1 epoch", frozen="body"), ll.Phase()])
    given = options(backend.name, made, ema_decay=0.5, divergence="rollback")
    whole = ll.run(spec, **given)
    ll.run(spec, **{**given, "epochs": 2}, checkpoints=tmp_path / "run")
    resumed = ll.resume(tmp_path / "run", epochs=3, model=made, data=arrays(), progress=False)
    assert_same(resumed, whole)
    np.testing.assert_array_equal(whole.ema_weights["mask"], whole.weights["mask"])
    assert np.isinf(whole.weights["mask"]).sum() == 3
    again = ll.run(spec, **options(backend.name, made, epochs=1), initial_weights=whole.weights)
    assert np.isfinite(again.losses).all()
    broken = {**whole.weights, "mask": whole.weights["mask"] * np.nan}
    with pytest.raises(ll.SpecError, match="'mask' holds NaN or infinity"):
        ll.run(spec, **options(backend.name, made), initial_weights=broken)


def test_a_mask_in_a_loop_of_ones_own(framework: Any, tmp_path: Path) -> None:
    model = masked(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    with framework.no_grad():
        model.body.bias.fill_(float("inf"))
    ll.save_state(tmp_path / "other", model, optimizer, scheduler)
    with pytest.raises(ll.CheckpointError, match=r"'body\.bias' holds NaN or infinity"):
        ll.load_state(tmp_path / "other", model, optimizer, scheduler)
    ll.load_state(tmp_path / "state", model, optimizer, scheduler)
    assert np.isfinite(model.body.bias.detach().numpy()).all()


def with_complex(torch: Any) -> Any:
    """A complex parameter, and a complex buffer that ``state_dict()`` leaves out."""

    class Fourier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = torch.nn.Linear(FEATURES, HIDDEN)
            self.kernel = torch.nn.Parameter(torch.randn(HIDDEN // 2 + 1, dtype=torch.complex64))
            self.register_buffer("turn", torch.polar(torch.ones(5), torch.arange(5.0)), persistent=False)
            self.head = torch.nn.Linear(HIDDEN, CLASSES)

        def forward(self, images: Any) -> Any:
            waves = torch.fft.rfft(self.body(images.flatten(1))) * self.kernel * self.turn
            return self.head(torch.fft.irfft(waves, n=HIDDEN))

    return Fourier()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_complex_numbers_stay_complex(torch: Any, tmp_path: Path, precision: str) -> None:
    def made() -> Any:
        return with_complex(torch)

    given = options("torch-eager", made, ema_decay=0.5, precision=precision)
    whole = ll.run(SPEC, **given)
    ll.run(SPEC, **{**given, "epochs": 2}, checkpoints=tmp_path / "run")
    resumed = ll.resume(tmp_path / "run", epochs=3, model=made, data=arrays(), progress=False)
    assert_same(resumed, whole)
    assert whole.weights["kernel"].dtype == {"float32": np.complex64, "float64": np.complex128}[precision]

    images, labels = next(iter(Batches(Dataset("own", *arrays()), 8, 0).epoch(0)))
    first = torch.nn.functional.cross_entropy(made()(torch.from_numpy(images)), torch.from_numpy(labels))
    assert whole.losses[0] == pytest.approx(float(first.detach()), rel=1e-6)


def counting(torch: Any, kept: Any) -> Any:
    """A layer whose forward pass depends on what it keeps beside its tensors."""

    class Counting(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(FEATURES, CLASSES)
            self.kept = kept

        def forward(self, images: Any) -> Any:
            if self.training:
                self.kept = {**self.kept, "calls": self.kept["calls"] + 1}
            return super().forward(images) * (1 + 0.1 * self.kept["calls"])

        def get_extra_state(self) -> Any:
            return self.kept

        def set_extra_state(self, state: Any) -> None:
            self.kept = state

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(1), Counting())


def test_an_extra_state_is_saved_too(torch: Any, tmp_path: Path) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(counting(torch, {"calls": 0, "scale": [torch.ones(2), ("a", 0.5)]}))
        return made[-1]

    spec = ll.Spec(ll.SGD(0.01))
    whole = ll.run(spec, **options("torch-eager", make))
    ll.run(spec, **options("torch-eager", make, epochs=2, checkpoints=tmp_path / "run"))
    assert_same(ll.resume(tmp_path / "run", epochs=3, model=make, data=arrays(), progress=False), whole)
    assert made[-1][1].kept["calls"] == made[0][1].kept["calls"] == 15
    model = made[0]
    optimizer, scheduler = ll.compile(spec, model)
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    model[1].kept = {"calls": 0}
    ll.load_state(tmp_path / "state", model, optimizer, scheduler)
    assert model[1].kept["calls"] == 15 and model[1].kept["scale"][1] == ("a", 0.5)


def test_an_extra_state_that_no_file_holds_is_refused(torch: Any, tmp_path: Path) -> None:
    def made() -> Any:
        return counting(torch, {"calls": 1, "odd": Path("a")})

    refused = r"module '1': what its get_extra_state\(\) returns cannot be saved"

    spec = ll.Spec(ll.SGD(0.01))
    assert len(ll.run(spec, **options("torch-eager", made, epochs=1)).losses) == 5
    with pytest.raises(ll.Unsupported, match=refused):
        ll.run(spec, **options("torch-eager", made, checkpoints=tmp_path / "run"))
    with pytest.raises(ll.Unsupported, match=refused):
        ll.run(spec, **options("torch-eager", made, divergence="rollback"))
    model = made()
    with pytest.raises(ll.Unsupported, match=refused):
        ll.save_state(tmp_path / "state", model, *ll.compile(spec, model))


def test_a_buffer_that_shares_its_own_memory_is_refused(torch: Any) -> None:
    def made() -> Any:
        model = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(FEATURES, CLASSES))
        model.register_buffer("wide", torch.ones(1).expand(3))
        return model

    with pytest.raises(ll.SpecError, match="'wide' cannot be written to"):
        ll.run(ll.Spec(ll.SGD(0.1)), **options("torch-eager", made))


def test_a_loop_in_bfloat16_goes_on_from_its_state(torch: Any, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    spec = ll.Spec(ll.AdamW(0.1))
    optimizer, scheduler = ll.compile(spec, model)

    def update() -> Any:
        optimizer.zero_grad()
        model(torch.ones(3, 2, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        scheduler.step()
        return [parameter.detach().clone() for parameter in model.parameters()]

    update()
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    expected = update()
    ll.load_state(tmp_path / "state", model, optimizer, scheduler)
    assert all(torch.equal(one, other) for one, other in zip(update(), expected, strict=True))


@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_a_parameter_of_whole_numbers_is_resumed(torch: Any, tmp_path: Path, dtype: str) -> None:
    def made() -> Any:
        model = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(FEATURES, CLASSES))
        model.register_parameter(
            "scale", torch.nn.Parameter(torch.tensor([3, 4], dtype=getattr(torch, dtype)), requires_grad=False)
        )
        return model

    spec = ll.Spec(ll.AdamW(0.01))
    whole = ll.run(spec, **options("torch-eager", made))
    ll.run(spec, **options("torch-eager", made, epochs=2, checkpoints=tmp_path / "run"))
    assert_same(ll.resume(tmp_path / "run", epochs=3, model=made, data=arrays(), progress=False), whole)
    assert whole.weights["scale"].tolist() == [3, 4]


def test_a_lazy_layer_is_refused(torch: Any) -> None:
    def made() -> Any:
        return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.LazyLinear(CLASSES))

    with pytest.raises(ll.SpecError, match=r"'1\.weight' has no shape yet"):
        ll.run(ll.Spec(ll.SGD(0.1)), **options("torch-eager", made))


def test_a_buffer_called_sparse_is_no_sparse_embedding(torch: Any) -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("sparse", torch.eye(2))
    optimizer, _ = ll.compile(ll.Spec(ll.SGD(0.5)), model)
    model(torch.ones(1, 2)).sum().backward()
    before = model.bias.detach().clone()
    optimizer.step()
    assert torch.equal(model.bias, before - 0.5)
