"""``ll.run`` on every backend with a model of the user's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.session import Session
from layered_lr.data import Batches
from tests.support.models import CLASSES, arrays, largest_difference, mlp, mlp_weights

SPEC = ll.Spec(
    optimizer=ll.SGD(lr=0.1, momentum=0.9),
    groups=[
        ll.Group("1", lr_scale=0.1, schedule=ll.StepLR(step_size=3, gamma=0.5)),
        ll.Group("3.bias", name="bias", lr=0.02),
    ],
    schedule=ll.StepLR(step_size=1, gamma=0.5, unit="epoch"),
)
STEPS, BATCH = 7, 8  # the training set's 40 images make 5 steps an epoch: this ends in the middle of the second


def run(backend: Backend, framework: Any, spec: ll.Spec = SPEC, **options: Any) -> ll.Result:
    defaults = {"model": mlp(framework), "data": arrays(), "max_steps": STEPS, "batch_size": BATCH}
    start = {} if "model" in options else {"initial_weights": mlp_weights()}
    return ll.run(spec, backend.name, **{**defaults, "progress": False, "device": "cpu", **start, **options})


def forward(weights: dict[str, NDArray[Any]], images: NDArray[Any]) -> NDArray[np.float64]:
    """The network's logits, in NumPy."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    hidden = np.tanh(images.reshape(len(images), -1) @ w["1.weight"].T + w["1.bias"])
    return hidden @ w["3.weight"].T + w["3.bias"]


def cross_entropy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]))


def test_the_result_tells_what_happened(backend: Backend, framework_of_backend: Any) -> None:
    result = run(backend, framework_of_backend)
    assert result.backend == backend.name
    assert result.losses.shape == (STEPS,) and result.losses.dtype == np.float64
    assert list(result.rates) == ["1", "bias", "rest"]
    assert all(rates.shape == (STEPS,) for rates in result.rates.values())
    assert result.accuracies.shape == (2,), "one after the epoch, one at the end"
    assert {name: array.shape for name, array in result.weights.items()} == {
        name: array.shape for name, array in mlp_weights().items()
    }
    assert (result.plan.total_steps, result.plan.steps_per_epoch) == (STEPS, 5)
    assert result.plan.spec == SPEC
    assert result.lowering == result.plan.lowering(backend.name)
    assert result.seconds_per_step > 0 and result.first_step_seconds > 0
    assert framework_of_backend.__version__.startswith(result.versions[framework_of_backend.__name__])
    expected = [[0.01] * 3 + [0.005] * 3 + [0.0025], [0.02] * 5 + [0.01] * 2, [0.1] * 5 + [0.05] * 2]
    # The rates of a compiled graph hold lr_scale in float32.
    np.testing.assert_allclose(list(result.rates.values()), expected, rtol=1e-6)
    assert max(result.largest_rate_differences().values()) < 1e-6


def test_losses_and_accuracies_are_those_of_the_weights(backend: Backend, framework_of_backend: Any) -> None:
    """The oracle is NumPy: the first loss from the start, the last accuracy from the weights at the end."""
    result = run(backend, framework_of_backend)
    _, _, x_test, y_test = data = arrays()
    images, labels = next(Batches(ll.load_dataset(data), BATCH, seed=0).epoch(0))
    # float32 sums of a dozen products.
    assert result.losses[0] == pytest.approx(cross_entropy(forward(mlp_weights(), images), labels), rel=1e-5)
    right = forward(result.weights, x_test).argmax(axis=1) == y_test
    assert result.accuracies[-1] == np.mean(right)


def test_a_loss_is_that_before_its_update(backend: Backend, framework_of_backend: Any) -> None:
    """One step fewer leaves the weights from which the last loss comes."""
    whole, shorter = (run(backend, framework_of_backend, max_steps=steps) for steps in (4, 3))
    assert np.array_equal(whole.losses[:3], shorter.losses)
    images, labels = list(Batches(ll.load_dataset(arrays()), BATCH, seed=0).epoch(0))[3]
    assert whole.losses[3] == pytest.approx(cross_entropy(forward(shorter.weights, images), labels), rel=1e-5)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "accuracies"),
    [(2, None, 10, 2), (None, 12, 12, 3), (1, 12, 5, 1), (3, 5, 5, 1), (None, 1, 1, 1)],
)
def test_a_run_is_as_long_as_it_is_told(
    backend: Backend, framework_of_backend: Any, epochs: int | None, max_steps: int | None, steps: int, accuracies: int
) -> None:
    result = run(backend, framework_of_backend, epochs=epochs, max_steps=max_steps)
    assert len(result.losses) == result.plan.total_steps == steps
    assert all(len(rates) == steps for rates in result.rates.values())
    assert len(result.accuracies) == accuracies


def test_more_steps_than_losses_are_fetched_at_once(backend: Backend, framework_of_backend: Any) -> None:
    """Losses are fetched in blocks; across their borders none may be lost or told twice."""
    spec = ll.Spec(optimizer=ll.SGD(lr=0.0))
    result = run(backend, framework_of_backend, spec, data=arrays(130 * BATCH), epochs=1, max_steps=None)
    batches = Batches(ll.load_dataset(arrays(130 * BATCH)), BATCH, seed=0).epoch(0)
    expected = [cross_entropy(forward(mlp_weights(), images), labels) for images, labels in batches]
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)


@pytest.mark.parametrize("augment", [False, True])
def test_every_backend_gets_the_same_batches(
    backend: Backend, framework_of_backend: Any, augment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[NDArray[Any], NDArray[Any]]] = []
    train_step = Session.train_step

    def recorded(self: Session, images: NDArray[Any], labels: NDArray[Any], parts: int) -> Any:
        seen.append((images.copy(), labels.copy()))
        return train_step(self, images, labels, parts)

    monkeypatch.setattr(Session, "train_step", recorded)
    run(backend, framework_of_backend, augment=augment, seed=5)
    batches = Batches(ll.load_dataset(arrays()), BATCH, seed=5, augment=augment)
    expected = [*batches.epoch(0), *batches.epoch(1)][:STEPS]
    for (images, labels), (expected_images, expected_labels) in zip(seen, expected, strict=True):
        assert np.array_equal(images, expected_images) and np.array_equal(labels, expected_labels)


def test_the_same_seed_is_bitwise_the_same_run(backend: Backend, framework_of_backend: Any) -> None:
    def build() -> Any:
        nn = framework_of_backend.nn
        return nn.Sequential(nn.Flatten(1), nn.Linear(12, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    spec = ll.Spec(optimizer=ll.SGD(lr=0.1, momentum=0.9))
    one, same, other = (run(backend, framework_of_backend, spec, model=build, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.losses, same.losses) and np.array_equal(one.accuracies, same.accuracies)
    assert largest_difference(one.weights, same.weights) == 0
    assert not np.array_equal(one.losses, other.losses)


def test_initial_weights_are_the_start(backend: Backend, framework_of_backend: Any) -> None:
    still = ll.Spec(optimizer=ll.SGD(lr=0.0))
    result = run(backend, framework_of_backend, still, initial_weights=mlp_weights(7), max_steps=1)
    assert largest_difference(result.weights, mlp_weights(7)) == 0


def test_reset_weights_start_anew(backend: Backend, framework_of_backend: Any) -> None:
    """What the patterns name is as the model's own callable made it, and may be left out or of another shape."""
    still = ll.Spec(optimizer=ll.SGD(lr=0.0))
    given = {**mlp_weights(7), "3.weight": np.zeros((99, 8), np.float32)}
    del given["3.bias"]
    own: dict[str, NDArray[Any]] = {}

    def build() -> Any:
        model = mlp(framework_of_backend)()
        own.update({name: value.detach().numpy().copy() for name, value in model.named_parameters()})
        return model

    result = run(
        backend,
        framework_of_backend,
        still,
        model=build,
        initial_weights=ll.InitialWeights(given, reset=["3"]),
        max_steps=1,
    )
    for name, source in {"1.weight": given, "1.bias": given, "3.weight": own, "3.bias": own}.items():
        assert np.array_equal(result.weights[name], source[name]), name


def test_initial_weights_from_a_file(backend: Backend, framework_of_backend: Any, tmp_path: Any) -> None:
    np.savez(tmp_path / "start.npz", **mlp_weights(7))
    still = ll.Spec(optimizer=ll.SGD(lr=0.0))
    result = run(backend, framework_of_backend, still, initial_weights=tmp_path / "start.npz", max_steps=1)
    assert largest_difference(result.weights, mlp_weights(7)) == 0


def test_a_run_is_quiet(backend: Backend, framework_of_backend: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run(backend, framework_of_backend)
    assert shown(capfd) == []


def shown(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Lines on the screen, but for the word of a backend that compiles; torch has one if it finds nvcc and no GPU."""
    out, err = capfd.readouterr()
    known = (": compiling the model", "No CUDA runtime is found")
    return [line for line in (out + err).splitlines() if not any(words in line for words in known)]


@pytest.fixture
def ctrl_c_at_step_3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real SIGINT, as the fourth update begins."""
    train_step, count = Session.train_step, iter(range(100))

    def interrupted(self: Session, images: NDArray[Any], labels: NDArray[Any], parts: int) -> Any:
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(self, images, labels, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "train_step", interrupted)
        yield


def test_ctrl_c_ends_a_run_and_nothing_else(
    backend: Backend, framework_of_backend: Any, ctrl_c_at_step_3: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(backend, framework_of_backend)
    assert shown(capfd) == []
    assert len(run(backend, framework_of_backend).losses) == STEPS
