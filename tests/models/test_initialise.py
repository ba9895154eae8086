"""Weights by named methods: distributions against torch.nn.init, orthogonality, and the same on every backend."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.models.initialise import METHODS, draw_weight, initialise
from layered_lr.models.nn_modules import list_modules, parameters_of, type_names
from layered_lr.training.options import RunOptions
from layered_lr.training.prepare import prepare

SHAPE = (48, 32, 3, 3)
RNG = np.random.default_rng(0)
PARAMETERS = [
    ll.Parameter("conv.weight", SHAPE),
    ll.Parameter("conv.bias", (48,)),
    ll.Parameter("norm.weight", (48,)),
    ll.Parameter("positions", (1, 5, 48)),
    ll.Parameter("fc.weight", (10, 48), ("tied.weight",)),
    ll.Parameter("fc.bias", (10,)),
]
START = {name: np.full(each.shape, 3, np.float32) for each in PARAMETERS for name in each.names}


def drawn_by_torch(method: str) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    made = torch.empty(SHAPE)
    init = torch.nn.init
    if method == "torch":
        return torch.nn.Conv2d(SHAPE[1], SHAPE[0], 3).weight.detach().numpy()
    name = {"kaiming": "kaiming_normal", "xavier": "xavier_uniform"}.get(method, method)
    return getattr(init, f"{name}_")(made).numpy()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "svd"])
def test_the_distribution_is_that_of_torch(method: str) -> None:
    ours, theirs = np.sort(draw_weight(method, SHAPE, RNG).ravel()), np.sort(drawn_by_torch(method).ravel())
    size = len(ours)
    # Kolmogorov and Smirnov: with one distribution in both, the distance is above this once in 100,000 draws.
    both = np.concatenate([ours, theirs])
    distance = np.abs(np.searchsorted(ours, both, "right") - np.searchsorted(theirs, both, "right")).max() / size
    assert distance < math.sqrt(-0.5 * math.log(1e-5 / 2)) * math.sqrt(2 / size)
    # A standard deviation of so many numbers scatters by 1 / sqrt(2 size) of itself; five times that is far.
    assert ours.std() == pytest.approx(theirs.std(), rel=5 * math.sqrt(2) / math.sqrt(2 * size))
    if "uniform" in method or method in ("xavier", "torch"):
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


@pytest.mark.parametrize("method", ["orthogonal", "svd"])
@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3), (4, 2, 3, 3), (1, 5), (20, 1, 2, 2)])
def test_rows_or_columns_are_orthogonal(method: str, shape: tuple[int, ...]) -> None:
    matrix = draw_weight(method, shape, RNG).reshape(shape[0], -1)
    small = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small / small[0, 0], np.eye(len(small)), atol=1e-12)
    if method == "orthogonal":
        assert small[0, 0] == pytest.approx(1, abs=1e-12)
    else:  # the mean square is kaiming's
        assert (matrix**2).mean() == pytest.approx(2 / math.prod(shape[1:]), rel=1e-12)


@pytest.mark.usefixtures("torch")
def test_normalisations_of_several_axes_and_embeddings_stay(backend: Backend) -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.Conv2d(3, 3, 1), torch.nn.LayerNorm((3, 8, 8)), torch.nn.Flatten()
            self.body = torch.nn.Sequential(*layers, torch.nn.Linear(192, 5))
            self.table = torch.nn.Embedding(5, 5, padding_idx=0)

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.table.weight.sum()

    def make() -> Any:
        torch.manual_seed(0)
        return Net()

    data = (np.zeros((8, 3, 8, 8), np.float32), np.arange(8) % 5) * 2
    options = RunOptions(backend=backend.name, model=make, data=data, batch_size=4, initialise="orthogonal")
    prepared = prepare(ll.Spec(ll.SGD(0.1)), options)
    found, before = prepared.backend.state(prepared.model), make().state_dict()
    changed = [name for name, array in found.items() if not np.allclose(array, before[name].numpy())]
    assert changed == ["body.0.weight", "body.0.bias", "body.3.weight", "body.3.bias"]


def test_biases_normalisations_and_tied_weights() -> None:
    made = initialise(START, PARAMETERS, "kaiming", 0)
    assert not made["conv.bias"].any() and not made["fc.bias"].any()
    assert (made["norm.weight"] == 3).all() and (made["positions"] == 3).all()
    assert (made["fc.weight"] == made["tied.weight"]).all() and made["fc.weight"].std() > 0
    assert made["conv.weight"].dtype == np.float32
    own = initialise(START, PARAMETERS, "torch", 0)
    assert 0 < np.abs(own["fc.bias"]).max() <= 1 / math.sqrt(48)


def test_patterns_choose_and_do_not_shift_each_other() -> None:
    every = initialise(START, PARAMETERS, "orthogonal", 5)
    one = initialise(START, PARAMETERS, {"head": "orthogonal"}, 5)
    assert (one["fc.weight"] == every["fc.weight"]).all() and (one["conv.weight"] == 3).all()
    first = initialise(START, PARAMETERS, {"fc": "svd", "*": "orthogonal"}, 5)
    assert (first["conv.weight"] == every["conv.weight"]).all() and (first["fc.weight"] != every["fc.weight"]).any()
    assert (initialise(START, PARAMETERS, "svd", 6)["fc.weight"] != first["fc.weight"]).any()


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"fcc": "svd"}, "Did you mean 'fc'"),
        ({"norm": "svd"}, "two dimensions or more"),
        ({"positions": "svd"}, "more"),
    ],
)
def test_a_pattern_without_a_weight_is_refused(chosen: dict[str, str], words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        initialise(START, PARAMETERS, chosen, 0)


def test_pretrained_weights_stay() -> None:
    made = initialise(START, PARAMETERS, "svd", 0, ("fc.weight", "fc.bias"))
    assert (made["conv.weight"] == 3).all() and not made["fc.bias"].any()
    with pytest.raises(ll.SpecError, match="the weights that were given have all of them"):
        initialise(START, PARAMETERS, "svd", 0, ())


def names_of(model: Any) -> dict[str, tuple[str, ...]]:
    return {path.removesuffix("."): type_names(module) for path, module in list_modules(model)}


def state_of(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def torchs_layers() -> dict[str, Any]:
    nn = pytest.importorskip("torch").nn
    return {
        "linear": lambda: nn.Linear(40, 60),
        "bilinear": lambda: nn.Bilinear(12, 15, 20),
        "conv1d": lambda: nn.Conv1d(20, 30, 5),
        "grouped": lambda: nn.Conv2d(24, 36, 3, groups=4),
        "transposed": lambda: nn.ConvTranspose2d(24, 36, 3),
        "transposed_grouped": lambda: nn.ConvTranspose1d(24, 60, 5, groups=3),
        "conv3d": lambda: nn.Conv3d(6, 20, 3),
        "attention": lambda: nn.MultiheadAttention(48, 4),
        "attention_of_three": lambda: nn.MultiheadAttention(48, 4, kdim=20, vdim=36),
    }


@pytest.mark.parametrize("kind", torchs_layers() if importlib.util.find_spec("torch") else [])
def test_every_layer_of_torch_is_drawn_as_it_draws_itself(kind: str) -> None:
    """A MultiheadAttention and a Bilinear were drawn as if they were linear layers."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    model = torch.nn.Sequential(torchs_layers()[kind]())
    theirs = state_of(model)
    parameters = [each for each, _ in parameters_of(model)]
    ours = initialise({name: array * 0 + 5 for name, array in theirs.items()}, parameters, "torch", 0)
    for name, wanted in theirs.items():
        found = ours[name]
        if name.endswith("in_proj_bias") and (found == 5).all():  # beside three weights of other names it stays
            continue
        largest = np.abs(wanted).max()
        # The largest of n even draws is below the bound by 1/n of it on average; ten times that is far.
        assert np.abs(found).max() == pytest.approx(largest, rel=10 / wanted.size), name
        assert found.std() == pytest.approx(wanted.std(), rel=5 / math.sqrt(wanted.size), abs=0), name


def test_what_torch_does_not_have_is_not_drawn_as_torch_does() -> None:
    torch = pytest.importorskip("torch")

    class Mixer(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(4, 4))

    parameters = [each for each, _ in parameters_of(torch.nn.Sequential(Mixer()))]
    with pytest.raises(ll.SpecError, match="is the weight of a Mixer, which torch does not have"):
        initialise({}, parameters, "torch", 0)
    assert initialise({"0.weight": np.ones((4, 4))}, parameters, "kaiming", 0)["0.weight"].std() > 0


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("new", [True, False])
def test_the_weight_of_a_weight_normalisation_is_drawn(new: bool, dim: int | None) -> None:
    torch = pytest.importorskip("torch")
    utils = torch.nn.utils
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the old one
        model = torch.nn.Sequential(
            (utils.parametrizations if new else utils).weight_norm(torch.nn.Linear(9, 7), dim=dim)
        )
    parameters = [each for each, _ in parameters_of(model)]
    made = initialise(state_of(model), parameters, "orthogonal", 0, modules=names_of(model))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in made.items()})
    model(torch.zeros(1, 9))  # the old one computes its weight in a forward pass
    weight = model[0].weight.detach().numpy()
    np.testing.assert_allclose(weight @ weight.T, np.eye(7), atol=1e-5)  # float32
    assert not made["0.bias"].any()


@pytest.mark.parametrize("norm", ["spectral_norm", "parametrizations.spectral_norm", "parametrizations.orthogonal"])
def test_a_weight_that_its_layer_computes_is_refused(norm: str) -> None:
    torch = pytest.importorskip("torch")
    wrap = functools.reduce(getattr, norm.split("."), torch.nn.utils)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), wrap(torch.nn.Linear(4, 4)))
    parameters = [each for each, _ in parameters_of(model)]
    with pytest.raises(ll.SpecError, match=r"the weight of '1' is computed of '1\."):
        initialise(state_of(model), parameters, "kaiming", 0, modules=names_of(model))
    made = initialise(state_of(model), parameters, {"0": "kaiming"}, 0, modules=names_of(model))
    assert (made["1.bias"] == state_of(model)["1.bias"]).all()


def test_a_pattern_that_is_never_used_is_refused() -> None:
    with pytest.raises(ll.SpecError, match=r"\{'head': 'svd'\} is never used: .* put the narrower one first"):
        initialise(START, PARAMETERS, {"*": "xavier", "head": "svd"}, 0)


def test_weights_that_are_given_leave_nothing_to_draw() -> None:
    """They replaced what was drawn, and nobody said so."""
    made = prepare(ll.Spec(ll.SGD(0.1)), RunOptions(batch_size=4))
    start = dict(made.backend.state(made.model))
    given: Any = {"batch_size": 4, "initialise": "svd"}
    with pytest.raises(ll.SpecError, match="the weights that were given have all of them"):
        prepare(ll.Spec(ll.SGD(0.1)), RunOptions(initial_weights=start, **given))
    some = ll.InitialWeights(start, reset=["head"])
    ready = prepare(ll.Spec(ll.SGD(0.1)), RunOptions(initial_weights=some, **given))
    found = ready.backend.state(ready.model)
    changed = [name for name, array in found.items() if not np.array_equal(array, start[name])]
    assert changed == ["classifier.1.weight"]
    with pytest.raises(ll.SpecError, match=r"pretrained=True beside initial_weights: both give every weight"):
        prepare(ll.Spec(ll.SGD(0.1)), RunOptions(initial_weights=start, pretrained=True, batch_size=4))


@pytest.mark.parametrize("wrong", ["kaimin", 3, {}, {"fc": "x"}, {"": "svd"}])
def test_a_wrong_method_is_refused(wrong: Any) -> None:
    with pytest.raises(ll.SpecError, match="initialise"):
        ll.run(initialise=wrong)


def test_every_backend_begins_with_the_same(backend: Backend) -> None:
    options = RunOptions(backend.name, max_steps=1, batch_size=4, seed=2, initialise={"head": "svd"})
    ready = prepare(ll.Spec(ll.SGD(0.0)), options, backend=backend)
    state = backend.state(ready.model)
    made = initialise(state, ready.plan.parameters, {"classifier.1": "svd"}, 2)
    assert (state["classifier.1.weight"] == made["classifier.1.weight"]).all()
    assert not state["classifier.1.bias"].any() and options.to_dict()["initialise"] == {"head": "svd"}
