"""MobileNetV2's names, shapes and initial weights against torchvision's own."""

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.models import catalogue


@pytest.fixture(scope="module")
def theirs(torch: Any) -> Any:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    return torchvision.models.mobilenet_v2(num_classes=10)


def draws(seed: int = 0) -> dict[str, Any]:
    return catalogue.draw_initial_weights("mobilenet_v2", 10, seed)


def test_names_shapes_and_kinds_are_torchvisions_in_its_order(theirs: Any) -> None:
    ours = draws()
    state = theirs.state_dict()
    assert list(ours) == list(state) and len(ours) == 314
    for name, array in ours.items():
        assert array.shape == tuple(state[name].shape), name
        assert array.dtype == state[name].numpy().dtype, name


def test_parameters_are_torchvisions_in_its_order(theirs: Any) -> None:
    expected = [ll.Parameter(name, tuple(p.shape)) for name, p in theirs.named_parameters()]
    assert catalogue.list_parameters("mobilenet_v2", 10) == expected and len(expected) == 158


def test_a_plan_by_name_and_of_the_model_are_the_same(theirs: Any) -> None:
    spec = ll.load_recipe("backbone-and-head").spec
    assert ll.resolve(spec, catalogue.list_parameters("mobilenet_v2", 10), 132, 22) == ll.resolve(spec, theirs, 132, 22)


def test_torchvision_takes_our_weights(theirs: Any, torch: Any) -> None:
    loaded = theirs.load_state_dict({name: torch.from_numpy(array) for name, array in draws().items()}, strict=True)
    assert loaded.missing_keys == loaded.unexpected_keys == []


def test_initial_weights_have_torchvisions_distribution(torch: Any) -> None:
    """Constants are equal; of each drawn array the spread, and of all together mean, spread and quantiles, agree."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(1)
    state = torchvision.models.mobilenet_v2(num_classes=10).state_dict()
    ours = draws(seed=1)
    pooled: list[tuple[Any, Any]] = []
    for name, tensor in state.items():
        their, our = tensor.numpy(), ours[name]
        if their.size < 2 or their.std() == 0:
            assert np.array_equal(our, their), name
            continue
        # A spread of n draws is known to 1 / sqrt(2 n): five of both sides' together.
        assert our.std() == pytest.approx(their.std(), rel=5 / np.sqrt(our.size)), name
        assert not np.array_equal(our, their)
        pooled.append((our.ravel() / their.std(), their.ravel() / their.std()))
    assert len(pooled) == 53, "52 convolutions and a linear layer"
    our, their = (np.concatenate(side) for side in zip(*pooled, strict=True))
    # 2.2 million draws: quantiles inside the middle 99.8 % are known to about 0.02 or better, at five sigmas.
    marks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    np.testing.assert_allclose(np.quantile(our, marks), np.quantile(their, marks), atol=0.05)
    assert abs(our.mean()) < 0.005 and our.std() == pytest.approx(1, abs=0.01)


def test_initial_weights_are_of_the_seed() -> None:
    one, again, other = draws(3), draws(3), draws(4)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    drawn = [name for name in one if not np.array_equal(one[name], other[name])]
    assert len(drawn) == 53 and all(name.endswith("weight") for name in drawn)
    flat = [one[name].ravel()[:9].tobytes() for name in drawn]
    assert len(set(flat)) == 53, "no two layers start with the same numbers"


def test_the_backbone_does_not_depend_on_the_number_of_classes() -> None:
    ten, two = draws(), catalogue.draw_initial_weights("mobilenet_v2", 2, 0)
    assert all(np.array_equal(ten[name], two[name]) for name in ten if name.startswith("features"))
    assert two["classifier.1.weight"].shape == (2, 1280)


def test_initial_weights_are_the_callers_own() -> None:
    draws()["classifier.1.bias"][:] = 7
    assert not draws()["classifier.1.bias"].any()


@pytest.mark.parametrize("name", ["resnet18", "MobileNet_V2", "", "mobilenet_v3"])
def test_an_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(ll.SpecError, match=f"model='{name}'.*mobilenet_v2"):
        catalogue.list_parameters(name, 10)
