"""Models that are wrapped, tied, frozen or partly unused, under ``ll.compile`` and ``ll.run``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.parity.recording import _dropouts
from tests.support.models import CLASSES, FEATURES, arrays, mlp, ones, taken, unit_gradients

TWO_GROUPS = ll.Spec(optimizer=ll.SGD(lr=0.1), groups=[ll.Group("1", lr_scale=0.5), ll.Group("3")])

WRAPPERS: dict[str, Callable[[Any, Any], Any]] = {
    "DataParallel": lambda torch, model: torch.nn.DataParallel(model),
    "torch.compile": lambda torch, model: torch.compile(model),
    "compiled, in DataParallel": lambda torch, model: torch.nn.DataParallel(torch.compile(model)),
    "DataParallel, compiled": lambda torch, model: torch.compile(torch.nn.DataParallel(model)),
    "a compiled layer": lambda torch, model: torch.nn.Sequential(*model[:3], torch.compile(model[3])),
    "compiled in place": lambda torch, model: model.compile() or model,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_keep_no_pattern_from_matching(torch: Any, wrap: Callable[[Any, Any], Any]) -> None:
    model = mlp(torch)()
    wrapped = wrap(torch, model)
    optimizer, _ = ll.compile(TWO_GROUPS, wrapped)
    assert [group["name"] for group in optimizer.param_groups] == ["1", "3"]
    found = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    assert found == [[id(parameter) for parameter in model[layer].parameters()] for layer in (1, 3)]


def test_distributed_data_parallel_keeps_no_pattern_from_matching(torch: Any, tmp_path: Any) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own parts
            model = torch.nn.parallel.DistributedDataParallel(mlp(torch)())
        optimizer, _ = ll.compile(TWO_GROUPS, model)
        assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    finally:
        distributed.destroy_process_group()


def tied(framework: Any) -> Any:
    """``a.weight`` is also ``b.weight``, and both are used: the gradient is their sum."""
    nn = framework.nn

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(FEATURES, FEATURES, bias=False), nn.Linear(FEATURES, FEATURES, bias=False)
            self.b.weight = self.a.weight
            self.c = nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.c(self.b(self.a(x.flatten(1)).tanh()).tanh())

    return Tied()


def test_a_tied_weight_is_trained_once(framework: Any) -> None:
    """Its gradient is 2, its step 2 * lr: not 4 * lr, as if two groups had it."""
    model = unit_gradients(framework, ["p0", "p1"])
    model.p1 = model.p0
    spec = ll.Spec(optimizer=ll.SGD(lr=0.25), groups=[ll.Group("p0"), ll.Group("p1", optional=True, lr=8.0)])
    optimizer, _ = ll.compile(spec, model)
    model(ones(framework)).backward()
    optimizer.step()
    assert taken(model, framework).tolist() == [0.5]
    assert "p0 is also p1: tied weights, trained once" in str(ll.resolve(spec, model))


@pytest.mark.parametrize("match", ["a", "b", "b.weight"])
def test_run_trains_tied_weights_at_their_groups_rate(backend: Backend, framework_of_backend: Any, match: str) -> None:
    spec = ll.Spec(optimizer=ll.SGD(lr=0.1), groups=[ll.Group(match, lr_scale=0.0), ll.Group("c")])
    start: dict[str, NDArray[Any]] = {}

    def build() -> Any:
        model = tied(framework_of_backend)
        start.update({name: value.detach().numpy().copy() for name, value in model.named_parameters()})
        return model

    result = ll.run(spec, backend.name, build, arrays(), max_steps=3, batch_size=8, progress=False)
    assert np.array_equal(result.weights["a.weight"], start["a.weight"])
    assert np.array_equal(result.weights["a.weight"], result.weights["b.weight"])
    assert not np.array_equal(result.weights["c.weight"], start["c.weight"])
    assert result.rates[match].tolist() == [0, 0, 0]


def partly_frozen(framework: Any) -> Any:
    """``frozen`` has ``requires_grad=False``, ``unused`` never gets a gradient."""
    nn = framework.nn

    class PartlyFrozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.frozen = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)
            self.unused = nn.Linear(FEATURES, CLASSES)
            for parameter in self.frozen.parameters():
                parameter.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            x = x.flatten(1)
            return self.used(x) + self.frozen(x)

    return PartlyFrozen()


def test_run_leaves_frozen_and_unused_parameters_alone(backend: Backend, framework_of_backend: Any) -> None:
    """Neither momentum nor decay moves them, and their groups' rates are told all the same."""
    spec = ll.Spec(
        optimizer=ll.SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
        groups=[
            ll.Group("frozen", lr_scale=0.5, schedule=ll.StepLR(step_size=2)),
            ll.Group("nothing", optional=True, lr_scale=0.25),
            ll.Group("unused", schedule=ll.StepLR(step_size=1, gamma=0.0)),
        ],
    )
    start: dict[str, NDArray[Any]] = {}

    def build() -> Any:
        model = partly_frozen(framework_of_backend)
        start.update({name: value.detach().numpy().copy() for name, value in model.named_parameters()})
        return model

    result = ll.run(spec, backend.name, build, arrays(), max_steps=4, batch_size=8, progress=False)
    moved = {name for name, value in start.items() if not np.array_equal(value, result.weights[name])}
    assert moved == {"used.weight", "used.bias"}
    np.testing.assert_allclose(result.rates["frozen"], [0.05, 0.05, 0.005, 0.005], rtol=1e-6)
    np.testing.assert_allclose(result.rates["nothing"], [0.025] * 4, rtol=1e-6)
    np.testing.assert_allclose(result.rates["unused"], [0.1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(result.rates["rest"], [0.1] * 4, rtol=1e-6)


def test_run_with_everything_frozen_is_an_error(backend: Backend, framework_of_backend: Any) -> None:
    def build() -> Any:
        model = mlp(framework_of_backend)()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return model

    with pytest.raises(ll.SpecError, match="requires_grad"):
        ll.run(TWO_GROUPS, backend.name, build, arrays(), max_steps=1, batch_size=8, progress=False)


def test_dropout_of_known_models_is_the_same_on_every_backend(backend: Backend) -> None:
    """So that comparisons do not warn of it, and a resumed run is not said to go on with other masks."""
    model = backend.build("mobilenet_v2", 10, 0.2, 0)
    assert list(_dropouts(model)) == []
    dropouts = [module for module in model.modules() if "Dropout" in type(module).__name__]
    assert [module.p for module in dropouts] == [0.2]
