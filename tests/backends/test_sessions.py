"""Sessions: what goes in is checked and copied, what comes out is a copy, and nothing is told that did not happen."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Session
from tests.support.models import CLASSES, arrays, largest_difference, mlp, mlp_weights

SPEC = ll.Spec(
    optimizer=ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("1", lr_scale=0.5)],
    schedule=ll.StepLR(step_size=2, gamma=0.5),
)
X, Y, _, _ = arrays(64)


def batch(at: int, size: int = 8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return X[at * size : (at + 1) * size].copy(), Y[at * size : (at + 1) * size].copy()


@pytest.fixture
def session(backend: Backend, framework_of_backend: Any) -> Session:
    return opened(backend, framework_of_backend)


def opened(backend: Backend, framework: Any) -> Session:
    """A session on the same weights each time."""
    model = backend.build(mlp(framework), CLASSES, 0.0, 0)
    backend.load(model, mlp_weights())
    return backend.open(ll.resolve(SPEC, model, total_steps=8), model, CLASSES)


@pytest.mark.parametrize("label", [CLASSES, -1, 10**12])
def test_a_label_out_of_range_is_a_data_error(session: Session, label: int) -> None:
    images, labels = batch(0)
    labels[3] = label
    with pytest.raises(ll.DataError, match=f"must be 0 to {CLASSES - 1}"):
        session.train_step(images, labels)


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), (1, 8), ()])
def test_labels_that_do_not_fit_the_images_are_a_data_error(session: Session, shape: tuple[int, ...]) -> None:
    with pytest.raises(ll.DataError, match="8 images"):
        session.train_step(batch(0)[0], np.zeros(shape, np.int64))


def test_an_empty_batch_is_a_data_error(session: Session) -> None:
    with pytest.raises(ll.DataError, match="0 images"):
        session.train_step(np.empty((0, 3, 2, 2), np.float32), np.empty(0, np.int64))


def test_a_refused_batch_counts_for_nothing(session: Session) -> None:
    session.train_step(*batch(0))
    before = session.weights()
    with pytest.raises(ll.DataError):
        session.train_step(np.empty((0, 3, 2, 2), np.float32), np.empty(0, np.int64))
    assert largest_difference(session.weights(), before) == 0
    assert session.rates(0, 9).shape == (1, 2)


def test_another_batch_shape(backend_name: str, session: Session) -> None:
    """A graph has one: a clear error, after which it goes on; the others take any."""
    session.losses([session.train_step(*batch(0))])
    if backend_name == "oneflow-graph":
        with pytest.raises(ll.DataError, match=r"shape \(4, 3, 2, 2\).*\(8, 3, 2, 2\)"):
            session.train_step(*batch(0, size=4))
    else:
        assert np.isfinite(session.losses([session.train_step(*batch(0, size=4))])).all()
    assert np.isfinite(session.losses([session.train_step(*batch(1))])).all()


def test_logits_take_any_batch_shape(session: Session) -> None:
    session.train_step(*batch(0))
    assert [session.logits(X[:size]).shape for size in (1, 5, 8)] == [(1, CLASSES), (5, CLASSES), (8, CLASSES)]


def trained(session: Session, spoil: bool) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Six steps without waiting for any; the arrays given are changed at once, or not."""
    handles = []
    for at in range(6):
        images, labels = batch(at)
        handles.append(session.train_step(images, labels))
        if spoil:
            images[:], labels[:] = 1e9, 0
    return session.losses(handles), session.weights()


def test_arrays_may_be_changed_after_train_step(backend: Backend, framework_of_backend: Any) -> None:
    losses, weights = trained(opened(backend, framework_of_backend), spoil=False)
    spoilt_losses, spoilt_weights = trained(opened(backend, framework_of_backend), spoil=True)
    assert np.array_equal(losses, spoilt_losses)
    assert largest_difference(weights, spoilt_weights) == 0


def big_mlp(framework: Any) -> Any:
    nn = framework.nn
    return nn.Sequential(nn.Flatten(1), nn.Linear(3072, 256), nn.Tanh(), nn.Linear(256, CLASSES))


def test_large_arrays_may_be_changed_after_train_step(backend: Backend, framework_of_backend: Any) -> None:
    """Slow enough that an asynchronous framework is still at it when the array changes."""
    rng = np.random.default_rng(0)
    source = rng.standard_normal((6, 256, 3, 32, 32)).astype(np.float32)
    labels = rng.integers(0, CLASSES, (6, 256))
    results = []
    for spoil in (False, True):
        model = backend.build(lambda: big_mlp(framework_of_backend), CLASSES, 0.0, 0)
        session = backend.open(ll.resolve(ll.Spec(optimizer=ll.SGD(lr=0.01)), model), model, CLASSES)
        handles, given = [], source.copy()
        for images, numbers in zip(given, labels, strict=True):
            handles.append(session.train_step(images, numbers))
            if spoil:
                images[:] = 1e9
        results.append((session.losses(handles), session.weights()))
    assert np.array_equal(results[0][0], results[1][0])
    assert largest_difference(results[0][1], results[1][1]) == 0


def test_weights_are_a_copy(session: Session) -> None:
    session.train_step(*batch(0))
    taken = session.weights()
    kept = {name: array.copy() for name, array in taken.items()}
    for at in range(1, 4):
        session.train_step(*batch(at))
    later = session.weights()
    assert largest_difference(taken, kept) == 0, "training wrote into what weights() gave"
    assert largest_difference(later, kept) > 0
    for array in later.values():
        array[...] = 1e9
    assert np.abs(session.logits(X[:8])).max() < 1e3, "what was written into weights() reached the model"


def test_state_is_a_copy(backend: Backend, framework_of_backend: Any) -> None:
    model = backend.build(mlp(framework_of_backend), CLASSES, 0.0, 0)
    backend.load(model, mlp_weights())
    for array in backend.state(model).values():
        array[...] = 1e9
    assert largest_difference(backend.state(model), mlp_weights()) == 0


def test_loaded_arrays_are_copied(backend: Backend, framework_of_backend: Any) -> None:
    model = backend.build(mlp(framework_of_backend), CLASSES, 0.0, 0)
    given = mlp_weights()
    backend.load(model, given)
    for array in given.values():
        array[...] = 1e9
    assert largest_difference(backend.state(model), mlp_weights()) == 0


def test_read_only_arrays_are_loaded(backend: Backend, framework_of_backend: Any) -> None:
    model = backend.build(mlp(framework_of_backend), CLASSES, 0.0, 0)
    given = mlp_weights()
    for array in given.values():
        array.flags.writeable = False
    backend.load(model, given)
    assert largest_difference(backend.state(model), mlp_weights()) == 0


def test_an_evaluation_changes_nothing(backend: Backend, framework_of_backend: Any) -> None:
    """Batch statistics and the course of the training are the same with and without it."""
    nn = framework_of_backend.nn

    def build() -> Any:
        return nn.Sequential(nn.Flatten(1), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))

    results = []
    for evaluate in (False, True):
        model = backend.build(build, CLASSES, 0.0, 0)
        session = backend.open(ll.resolve(ll.Spec(optimizer=ll.SGD(lr=0.1)), model), model, CLASSES)
        for at in range(4):
            session.train_step(*batch(at))
            if evaluate:
                answers = [session.logits(X[:11]) for _ in range(2)]
                assert np.array_equal(*answers)
        results.append(session.weights())
    assert largest_difference(*results) == 0


def test_rates_are_those_of_the_steps_that_were_made(session: Session) -> None:
    for at in range(3):
        session.train_step(*batch(at))
    expected = [[0.05, 0.1], [0.05, 0.1], [0.025, 0.05]]
    np.testing.assert_allclose(session.rates(0, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(session.rates(1, 2), expected[1:2], rtol=1e-6)
    np.testing.assert_allclose(session.rates(0, 100), expected, rtol=1e-6)
    session.train_step(*batch(3))
    assert session.rates(0, 100).shape == (4, 2)


def test_before_the_first_step_there_are_no_rates(session: Session) -> None:
    assert session.rates(0, 5).shape == (0, 2)


def test_stale_gradients_are_not_added(backend: Backend, framework_of_backend: Any) -> None:
    """An eager backward pass before the session is opened has no part in its first update."""
    results = []
    for stale in (False, True):
        model = backend.build(mlp(framework_of_backend), CLASSES, 0.0, 0)
        backend.load(model, mlp_weights())
        if stale:
            (1000 * model(framework_of_backend.tensor(X[:8])).sum()).backward()
        session = backend.open(ll.resolve(SPEC, model, total_steps=8), model, CLASSES)
        for at in range(2):
            session.train_step(*batch(at))
        results.append(session.weights())
    assert largest_difference(*results) == 0


def test_the_first_step_of_a_graph_is_for_the_main_thread(oneflow: Any) -> None:
    session = opened(load_backend("oneflow-graph", "cpu"), oneflow)
    raised: list[BaseException] = []

    def step() -> None:
        try:
            session.train_step(*batch(0))
        except BaseException as error:
            raised.append(error)

    def in_a_thread() -> None:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()

    in_a_thread()
    assert [type(error) for error in raised] == [ll.Unsupported]
    assert "main thread" in str(raised.pop())
    first = session.losses([session.train_step(*batch(0))])  # the session is none the worse
    assert np.isfinite(first).all()
    in_a_thread()  # and once compiled it may be stepped from anywhere
    assert raised == []
    assert len(session.rates(0, 9)) == 2


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu", "", "tpu"])
def test_a_device_that_is_not_there_is_a_spec_error(backend: Backend, device: str) -> None:
    if device.startswith("cuda") and _has_gpu(backend):
        pytest.skip("there is a GPU")
    with pytest.raises(ll.SpecError, match="device="):
        load_backend(backend.name, device)


def _has_gpu(backend: Backend) -> bool:
    return str(getattr(load_backend(backend.name, "auto"), "device", "cpu")).startswith("cuda")
