"""Models and rates with which ``ll.run`` cannot go on: an error that says why, never a framework's or an abort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import CLASSES, FEATURES, HIDDEN, mlp
from tests.support.wrong_models import CONSTANT, WRONG_IN_TRAINING, answering, run


def linear(framework: Any, outputs: int, inputs: int = FEATURES) -> Callable[[], Any]:
    nn = framework.nn
    return lambda: nn.Sequential(nn.Flatten(1), nn.Linear(inputs, outputs))


def test_too_few_classes_are_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"shape \(8, 2\) for 8 images; must be a tensor of shape \(8, 3\)"):
        run(backend, linear(framework_of_backend, CLASSES - 1))


def test_more_classes_than_the_data_are_fine(backend: Backend, framework_of_backend: Any) -> None:
    assert len(run(backend, linear(framework_of_backend, 10)).losses) == 4


def test_images_that_the_model_does_not_take_are_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"does not take images of shape \(8, 3, 2, 2\)"):
        run(backend, linear(framework_of_backend, CLASSES, inputs=FEATURES + 1))


WRONG_ANSWERS: dict[str, Callable[[Any, bool], Any]] = {
    "a tuple": lambda logits, training: (logits, logits),
    "nothing": lambda logits, training: None,
    "one axis too few": lambda logits, training: logits.sum(),
    "one axis too many": lambda logits, training: logits.unsqueeze(0),
    "half of the batch": lambda logits, training: logits[:4],
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_an_answer_of_another_kind_is_a_spec_error(
    backend: Backend, framework_of_backend: Any, answer: Callable[[Any, bool], Any]
) -> None:
    with pytest.raises(ll.SpecError, match="model: "):
        run(backend, answering(framework_of_backend, answer))


def test_an_answer_that_is_wrong_in_training_alone_is_an_error(backend: Backend) -> None:
    """As GoogLeNet's, which answers a tuple then. In a process of its own: OneFlow may abort."""
    from tests.support.isolation import values_of

    errors = values_of(error_of_wrong_in_training, [(backend.name, kind) for kind in WRONG_IN_TRAINING])
    assert dict(zip(WRONG_IN_TRAINING, errors, strict=True)) == dict.fromkeys(WRONG_IN_TRAINING, "SpecError")


def error_of_wrong_in_training(name: str, kind: str) -> str:
    import importlib

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from tests.support.wrong_models import WRONG_IN_TRAINING, answering, run

    backend = load_backend(name, "cpu")
    framework = importlib.import_module(name.split("-")[0])
    try:
        run(backend, answering(framework, WRONG_IN_TRAINING[kind]))
    except Exception as error:
        return "SpecError" if isinstance(error, ll.SpecError) else f"{type(error).__name__}: {error}"[:300]
    return "nothing"


@pytest.mark.parametrize("made", [None, 3, dict])
def test_a_callable_that_makes_no_module_is_a_spec_error(backend: Backend, made: Any) -> None:
    with pytest.raises(ll.SpecError, match=f"the callable made a {type(made).__name__}"):
        run(backend, lambda: made)


@pytest.mark.parametrize("backend_name", ["torch-eager", "torch-compile"])
def test_a_module_of_oneflow_is_a_spec_error_on_torch(backend: Backend, oneflow: Any) -> None:
    with pytest.raises(ll.SpecError, match="the callable made a Sequential"):
        run(backend, mlp(oneflow))


def test_a_module_object_is_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    with pytest.raises(ll.SpecError, match="lambda"):
        run(backend, mlp(framework_of_backend)())


def test_a_model_without_parameters_is_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    with pytest.raises(ll.SpecError, match="no parameters"):
        run(backend, lambda: framework_of_backend.nn.Flatten(1))


def deep_linear(framework: Any) -> Any:
    nn = framework.nn
    return nn.Sequential(nn.Flatten(1), nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, CLASSES))


def test_a_loss_that_is_no_number_is_training_diverged(backend: Backend, framework_of_backend: Any) -> None:
    """Two layers of weights around 1e30 multiply to infinity in float32, at the second batch."""
    spec = ll.Spec(optimizer=ll.SGD(lr=1e30), groups=[ll.Group("1", lr_scale=0.5)])
    with pytest.raises(ll.TrainingDiverged, match=r"loss is (nan|inf) at step 1, at rates 1: 5e\+29, rest: 1e\+30"):
        run(backend, lambda: deep_linear(framework_of_backend), spec)


def test_it_diverges_at_once_where_the_weights_are_no_numbers(backend: Backend, framework_of_backend: Any) -> None:
    def build() -> Any:
        model = deep_linear(framework_of_backend)
        with framework_of_backend.no_grad():
            model[2].bias.copy_(framework_of_backend.tensor(np.full(CLASSES, np.nan, np.float32)))
        return model

    with pytest.raises(ll.TrainingDiverged, match=r"loss is nan at step 0, at rates rest: 0\.1"):
        run(backend, build)


def test_rates_beyond_float32_end_in_an_error_of_ours(backend: Backend, framework_of_backend: Any) -> None:
    """torch cannot take the rate, OneFlow makes it infinite: both have to be told in this library's words."""
    spec = ll.Spec(optimizer=ll.SGD(lr=1e38), groups=[ll.Group("1", lr_scale=1e10)])
    with pytest.raises(ll.LayeredLRError):
        run(backend, mlp(framework_of_backend), spec)


def test_a_gpu_that_is_not_there_is_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    if framework_of_backend.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ll.SpecError, match="device='cuda'"):
        run(backend, mlp(framework_of_backend), device="cuda")


def test_a_device_without_data_is_a_spec_error(backend: Backend, framework_of_backend: Any) -> None:
    """torch's ``meta`` device holds shapes alone."""
    with pytest.raises(ll.SpecError, match="device='meta'"):
        run(backend, mlp(framework_of_backend), device="meta")


def test_mobilenet_of_one_channel_is_a_spec_error(backend: Backend) -> None:
    x = np.zeros((8, 1, 32, 32), np.float32)
    y = np.arange(8) % 2
    with pytest.raises(ll.SpecError, match="3 channels"):
        ll.run(CONSTANT, backend.name, data=(x, y, x, y), max_steps=1, batch_size=4, progress=False)
