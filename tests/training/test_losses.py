"""The loss of a run: label smoothing, class weights, sums, against torch's own in a loop by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import CLASSES, arrays

torch = pytest.importorskip("torch")
SPEC = ll.Spec(ll.SGD(0.1))
WEIGHTS = [0.5, 2.0, 0.0]
LOSSES = {
    "plain": ll.CrossEntropy(),
    "smoothed": ll.CrossEntropy(label_smoothing=0.1),
    "weighted": ll.CrossEntropy(class_weights=WEIGHTS),
    "both": ll.CrossEntropy(0.3, WEIGHTS),
    "sum": ll.CrossEntropy(0.2, WEIGHTS, "sum"),
}


def linear(framework: str = "torch") -> Any:
    """A model without anything random: one layer from zeros."""
    import importlib

    nn: Any = importlib.import_module(framework).nn
    model = nn.Sequential(nn.Flatten(1), nn.Linear(int(np.prod(arrays()[0].shape[1:])), CLASSES))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def said(backend: str, loss: Any, **other: Any) -> dict[str, Any]:
    fixed = {"data": arrays(), "epochs": 2, "batch_size": 8, "precision": "float64", "augment": False}
    model = {"model": lambda: linear(backend.split("-")[0])}
    return {**fixed, **model, "backend": backend, "loss": loss, "progress": False, **other}


def by_hand(loss: ll.CrossEntropy) -> tuple[list[float], dict[str, Any]]:
    """The losses and weights of the same training in plain torch."""
    from layered_lr.data import Batches as Order
    from layered_lr.data import load_dataset

    model = linear().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = torch.tensor(loss.class_weights, dtype=torch.float64) if loss.class_weights else None
    losses = []
    order = Order(load_dataset(arrays(), None, None), 8, 0, augment=False)
    for epoch in range(2):
        for images, labels in order.epoch(epoch):
            optimizer.zero_grad()
            found = torch.nn.functional.cross_entropy(
                model(torch.from_numpy(images).double()),
                torch.from_numpy(labels),
                weights,
                label_smoothing=loss.label_smoothing,
                reduction=loss.reduction,
            )
            found.backward()
            optimizer.step()
            losses.append(found.item())
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_that_of_torch(backend: Any, name: str) -> None:
    losses, weights = by_hand(LOSSES[name])
    result = ll.run(SPEC, **said(backend.name, LOSSES[name]))
    # The bound of the library for float64: the same arithmetic in another order.
    np.testing.assert_allclose(result.losses, losses, rtol=1e-9, atol=1e-9)
    for key, array in weights.items():
        np.testing.assert_allclose(result.weights[key], array, rtol=1e-9, atol=1e-9)


def test_accumulated_batches_have_the_loss_of_all_their_images(backend: Any) -> None:
    losses, weights = by_hand(LOSSES["smoothed"])
    result = ll.run(SPEC, **said(backend.name, LOSSES["smoothed"], batch_size=4, accumulate_steps=2))
    np.testing.assert_allclose(result.losses, losses, rtol=1e-9, atol=1e-9)  # as above
    for key, array in weights.items():
        np.testing.assert_allclose(result.weights[key], array, rtol=1e-9, atol=1e-9)


def test_a_run_that_goes_on_keeps_its_loss(tmp_path: Any) -> None:
    wanted = said("torch-eager", LOSSES["both"], model=linear)
    whole = ll.run(SPEC, **wanted)
    ll.run(SPEC, **{**wanted, "max_steps": 5}, checkpoints=tmp_path / "r")
    rest = ll.resume(tmp_path / "r", max_steps=10, data=arrays(), model=linear)
    assert rest.losses.tolist() == whole.losses.tolist() and len(rest.losses) == 10


@pytest.mark.parametrize("name", LOSSES)
def test_evaluate_measures_the_loss_of_the_run(name: str) -> None:
    loss = LOSSES[name]
    result = ll.run(SPEC, **said("torch-eager", loss, model=linear, epochs=1))
    model = linear().double()
    model.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in result.weights.items()})
    *_, images, labels = arrays()
    weights = torch.tensor(loss.class_weights, dtype=torch.float64) if loss.class_weights else None
    due = torch.nn.functional.cross_entropy(
        model(torch.from_numpy(images).double()),
        torch.from_numpy(labels),
        weights,
        label_smoothing=loss.label_smoothing,
        reduction=loss.reduction,
    )
    found = result.evaluate(data=arrays(), model=linear).loss
    np.testing.assert_allclose(found, due.item(), rtol=1e-9)  # float64, in another order


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"loss": "mse"}, "loss must be .cross_entropy., ll.CrossEntropy"),
        ({"loss": {"class_weights": [1.0, 2.0]}}, "2 numbers and the data have 3 classes"),
        ({"loss": {"class_weights": WEIGHTS}, "accumulate_steps": 2}, "class_weights with accumulate_steps=2"),
        ({"loss": {"reduction": "sum"}, "accumulate_steps": 2}, "'sum' with accumulate_steps=2"),
    ],
)
def test_a_wrong_loss_is_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ll.SpecError, match=match):
        ll.run(SPEC, **{**said("torch-eager", None, model=linear), **given})


def test_a_batch_of_classes_that_weigh_nothing_is_named(backend: Any) -> None:
    """Lower rates do not help: the mean divides by a sum of weights that is 0."""
    weights = ll.CrossEntropy(class_weights=[0.0, 0.0, 1.0])
    given = said(backend.name, weights, batch_size=2, epochs=9)
    with pytest.raises(
        ll.TrainingDiverged, match=r"at step \d+: each image of its batch is of a class with weight 0"
    ) as caught:
        ll.run(SPEC, **given)
    assert "Try lower" not in str(caught.value) and "Give these classes a weight above 0" in str(caught.value)
    result = ll.run(SPEC, **{**given, "divergence": "skip", "epochs": 1})
    whys = [event["why"] for event in result.events if event["event"] == "skipped"]
    assert whys and all("because each image of its batch is of a class with weight 0" in why for why in whys)


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_smoothing": 1.5},
        {"label_smoothing": True},
        {"class_weights": [1.0, -1.0]},
        {"class_weights": [0.0, 0.0]},
        {"class_weights": [float("nan")]},
        {"class_weights": ["a"]},
        {"class_weights": 3},
        {"reduction": "none"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ll.SpecError, match=f"{next(iter(wrong))} must be"):
        ll.CrossEntropy(**wrong)


def test_more_outputs_than_classes_are_refused(backend: Any) -> None:
    few = arrays()
    two = (few[0], few[1] % 2, few[2], few[3] % 2)
    with pytest.raises(ll.SpecError, match="3 numbers for 2 classes"):
        ll.run(SPEC, **said(backend.name, ll.CrossEntropy(0.1), data=two))


def test_overfit_wants_a_target_for_a_smoothed_loss() -> None:
    given = said("torch-eager", LOSSES["smoothed"], model=linear)
    del given["epochs"], given["progress"]
    with pytest.raises(ll.SpecError, match="Give target="):
        ll.overfit(SPEC, **given)


def test_weights_as_words_and_weights_of_one() -> None:
    assert ll.CrossEntropy(class_weights=["1,2", "0.5"]).class_weights == (1.0, 2.0, 0.5)  # type: ignore[list-item]
    assert ll.CrossEntropy(class_weights=[1, 1]).settings.is_plain
