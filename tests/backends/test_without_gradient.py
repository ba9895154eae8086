"""What never gets a gradient is said: all of a model, a group of it, what the user froze, a phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays, mlp, mlp_weights

SPEC = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("3", name="head", lr_scale=0.5)])


def options(backend: Backend, model: Callable[[], Any], **other: Any) -> dict[str, Any]:
    usual = {"backend": backend.name, "model": model, "data": arrays(), "epochs": 2, "batch_size": 8}
    return {**usual, "device": "cpu", "progress": False, **other}


def cut_off(framework: Any, how: str) -> Any:
    """A model that hides its parameters from the loss."""

    class CutOff(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = framework.nn.Linear(FEATURES, CLASSES)

        def forward(self, images: Any) -> Any:
            flat = images.flatten(1)
            if how == "no_grad":
                with framework.no_grad():
                    return self.body(flat)
            if how == "unused":
                return flat[:, :CLASSES] * 2.0
            return self.body(flat).detach()

    return CutOff()


@pytest.mark.parametrize("how", ["detach", "no_grad", "unused"])
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_a_model_that_no_gradient_reaches_is_refused(
    backend: Backend, framework_of_backend: Any, how: str, accumulate_steps: int
) -> None:
    given = options(backend, lambda: cut_off(framework_of_backend, how), accumulate_steps=accumulate_steps)
    with pytest.raises(ll.SpecError, match="no gradient reaches any of its trainable parameters"):
        ll.run(ll.Spec(ll.SGD(0.1)), **given)


def test_a_run_inside_no_grad_is_refused(backend: Backend, framework_of_backend: Any) -> None:
    with framework_of_backend.no_grad(), pytest.raises(ll.SpecError, match="gradients are switched off here"):
        ll.run(SPEC, **options(backend, mlp(framework_of_backend)))


def test_a_model_of_inference_mode_is_refused(torch: Any) -> None:
    with torch.inference_mode():
        model = mlp(torch)()
    with pytest.raises(ll.SpecError, match=r"made inside torch\.inference_mode"):
        ll.run(SPEC, "torch-eager", lambda: model, arrays(), epochs=1, batch_size=8, progress=False)


def with_unused_layer(framework: Any) -> Any:
    """The network ``mlp``, and a layer that its answer does not depend on."""

    class Net(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = framework.nn.Linear(FEATURES, HIDDEN)
            self.aux = framework.nn.Linear(FEATURES, CLASSES)
            self.head = framework.nn.Linear(HIDDEN, CLASSES)

        def forward(self, images: Any) -> Any:
            return self.head(self.body(images.flatten(1)).tanh())

    return Net()


def test_a_group_without_gradients_is_named_once(
    backend: Backend, framework_of_backend: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("aux"), ll.Group(["head", "aux"], name="head")])
    result = ll.run(spec, **options(backend, lambda: with_unused_layer(framework_of_backend)))
    assert capfd.readouterr().err.count("no gradient: group aux") == 1
    assert [event["group"] for event in result.events] == ["aux"]
    assert "group 'aux': no gradient has reached any of its parameters" in str(result)
    assert "group 'head'" not in str(result)


def test_what_is_frozen_by_hand_is_said(backend: Backend, framework_of_backend: Any) -> None:
    def made() -> Any:
        model = mlp(framework_of_backend)()
        for parameter in model[1].parameters():
            parameter.requires_grad_(False)
        model[3].bias.requires_grad_(False)
        return model

    spec = ll.Spec(ll.SGD(0.1), [ll.Group("1", name="body"), ll.Group("3", name="head")])
    result = ll.run(spec, **options(backend, made, initial_weights=mlp_weights()))
    body = "group 'body': all of its parameters have requires_grad=False and stay as they are, whatever its rate is"
    head = "group 'head': 1 of its 2 parameters have requires_grad=False and stay as they are, whatever its rate is"
    for text in (str(result.plan), str(result)):
        assert body in text and head in text
    np.testing.assert_array_equal(result.weights["1.weight"], mlp_weights()["1.weight"])
    assert (result.weights["3.weight"] != mlp_weights()["3.weight"]).any()
    assert ll.plan_from_dict(result.plan.to_dict()) == result.plan
    assert body in str(ll.plan_from_dict(result.plan.to_dict()))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_phase_in_which_nothing_trains(backend: Backend, framework_of_backend: Any, torch: Any, where: int) -> None:
    """It makes its updates, at rate 0, and moves nothing; the phases around it train as torch does."""
    ends = ["3 steps", "6 steps", None]
    phases = [ll.Phase(end, frozen="*" if index == where else ["1"]) for index, end in enumerate(ends)]
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("3", name="head"), ll.Group("1", name="body")], phases=phases)
    run = options(backend, mlp(framework_of_backend), epochs=None, max_steps=9, initial_weights=mlp_weights())
    result = ll.run(spec, **run)
    oracle = ll.run(spec, **{**run, "backend": "torch-eager", "model": mlp(torch)})
    np.testing.assert_allclose(result.losses, oracle.losses, rtol=1e-5)  # float32, nine updates
    still = np.zeros(9, bool)
    still[3 * where : 3 * where + 3] = True
    np.testing.assert_array_equal(result.rates["head"] == 0, still)
    assert (result.rates["body"] == 0).all()
    for name, array in oracle.weights.items():
        np.testing.assert_allclose(result.weights[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(result.weights["1.weight"], mlp_weights()["1.weight"])
