"""Models that hold one tensor in several places, or hide some from ``state_dict()``: averages, resuming, saving."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.data import Batches, Dataset
from layered_lr.registry import TABLE
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays
from tests.support.resuming import assert_same

SPEC = ll.Spec(ll.SGD(0.3, momentum=0.9))


def net(framework: Any) -> Any:
    """A block under two names and in a list, and a normalisation whose statistics ``state_dict()`` leaves out."""
    nn = framework.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Linear(FEATURES, HIDDEN)
            self.again = self.block
            self.norm = nn.BatchNorm1d(HIDDEN)
            self.norm._non_persistent_buffers_set |= {"running_mean", "running_var"}
            self.head = nn.Linear(HIDDEN, CLASSES)
            self.hidden = [self.block] if framework.__name__ == "torch" else None  # a Graph sees no plain lists

        def forward(self, images: Any) -> Any:
            flat = images.flatten(1)
            return self.head(self.norm((self.hidden[0] if self.hidden else self.block)(flat) + self.again(flat)))

    return Net()


def options(backend: Backend, **other: Any) -> dict[str, Any]:
    framework = importlib.import_module(TABLE[backend.name].framework)
    usual = {"backend": backend.name, "model": lambda: net(framework), "data": arrays(), "epochs": 3, "batch_size": 8}
    return {**usual, "progress": False, "device": "cpu", **other}


def test_an_average_changes_nothing_of_the_training(backend: Backend) -> None:
    plain, averaged = (ll.run(SPEC, **options(backend, ema_decay=decay)) for decay in (None, 0.9))
    np.testing.assert_array_equal(averaged.losses, plain.losses)
    assert averaged.weights.keys() == plain.weights.keys()
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(averaged.weights[name], array, err_msg=name)
    assert not np.allclose(averaged.weights["block.weight"], averaged.ema_weights["block.weight"])


def test_hidden_statistics_are_resumed_and_are_no_weights(backend: Backend, tmp_path: Path) -> None:
    whole = ll.run(SPEC, **options(backend, ema_decay=0.9))
    ll.run(SPEC, **options(backend, ema_decay=0.9, epochs=2, checkpoints=tmp_path / "run"))
    model = options(backend)["model"]
    resumed = ll.resume(tmp_path / "run", epochs=3, model=model, data=arrays(), progress=False)
    assert_same(resumed, whole)
    assert "norm.running_mean" not in whole.weights


def test_the_average_is_that_of_torch(torch: Any) -> None:
    def made() -> Any:
        torch.manual_seed(3)
        return net(torch)

    x, y, x_test, y_test = arrays(test=60)
    data = (x, y, x_test, y_test)
    result = ll.run(SPEC, "torch-eager", made, data, epochs=3, batch_size=8, progress=False, ema_decay=0.9)

    swa = torch.optim.swa_utils
    model = made()
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    batches, accuracies = Batches(Dataset("own", *data), 8, 0), []
    for epoch in range(3):
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
        average.eval()
        with torch.no_grad():
            right = average(torch.from_numpy(x_test)).argmax(1).numpy() == y_test
        accuracies.append(right.mean())
        average.train()
    np.testing.assert_allclose(result.ema_accuracies, accuracies, rtol=0, atol=1e-12)
    for name, tensor in average.module.named_parameters():
        # Both in float32; torch's lerp for many tensors may round otherwise than for one.
        np.testing.assert_allclose(
            result.ema_weights[name], tensor.detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_the_average_of_a_model_in_data_parallel(torch: Any) -> None:
    def wrapped() -> Any:
        torch.manual_seed(3)
        return torch.nn.DataParallel(net(torch))

    result = ll.run(
        SPEC, "torch-eager", wrapped, arrays(), epochs=1, batch_size=8, progress=False, ema_decay=0.5, device="cpu"
    )
    assert len(result.ema_accuracies) == 1
    assert np.isfinite(result.ema_weights["module.block.weight"]).all()


def test_a_loop_of_ones_own_saves_hidden_buffers(framework: Any, tmp_path: Path) -> None:
    model = net(framework)
    optimizer, scheduler = ll.compile(SPEC, model)
    images = framework.tensor(arrays()[0][:8])
    model(images).sum().backward()
    optimizer.step()
    scheduler.step()
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    other = net(framework)
    ll.load_state(tmp_path / "state", other, *ll.compile(SPEC, other))
    np.testing.assert_array_equal(other.norm.running_var.numpy(), model.norm.running_var.numpy())
    assert float(abs(model.norm.running_mean).sum()) > 0


@pytest.mark.parametrize("shape", [(), (4,)], ids=["none at first", "of another shape"])
def test_a_hidden_buffer_that_a_forward_pass_makes_is_restored(torch: Any, tmp_path: Path, shape: Any) -> None:
    def made() -> Any:
        model = torch.nn.Linear(2, 2)
        model.register_buffer("cache", torch.zeros(shape) if shape else None, persistent=False)
        return model

    model = made()
    optimizer, scheduler = ll.compile(SPEC, model)
    model.cache = torch.arange(6.0)
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    other = made()
    ll.load_state(tmp_path / "state", other, *ll.compile(SPEC, other))
    np.testing.assert_array_equal(other.cache.numpy(), np.arange(6.0))
