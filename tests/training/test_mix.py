"""Runs on mixed images: on each backend the losses and weights of a loop by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, load_dataset
from layered_lr.data.mixing import Mixer
from tests.support.models import CLASSES, arrays

torch = pytest.importorskip("torch")
SPEC = ll.Spec(ll.SGD(0.1))
MIX = ll.Mix(mixup=0.4, cutmix=1.0)


def net() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(int(np.prod(arrays()[0].shape[1:])), CLASSES))


def focal(outputs: Any, targets: Any) -> Any:
    log_p = torch.nn.functional.log_softmax(outputs, 1)
    return -(targets * (1 - log_p.exp()) ** 2 * log_p).sum(1).mean()


def said(backend: str, loss: Any, **other: Any) -> dict[str, Any]:
    fixed = {"data": arrays(), "epochs": 2, "batch_size": 8, "precision": "float64", "augment": False, "model": net}
    return {**fixed, "backend": backend, "loss": loss, "mix": MIX, "progress": False, **other}


def by_hand(loss: Any) -> tuple[list[float], dict[str, Any]]:
    model = net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    order = Batches(
        load_dataset(arrays(), None, None),
        8,
        0,
        augment=False,
        mixer=Mixer(MIX.mixup, MIX.cutmix, MIX.probability, CLASSES, 0),
    )
    for epoch in range(2):
        for images, shares in order.epoch(epoch):
            optimizer.zero_grad()
            outputs, targets = model(torch.from_numpy(images).double()), torch.from_numpy(shares)
            if isinstance(loss, ll.CrossEntropy):
                weights = torch.tensor(loss.class_weights, dtype=torch.float64) if loss.class_weights else None
                more = {"label_smoothing": loss.label_smoothing, "reduction": loss.reduction}
                found = torch.nn.functional.cross_entropy(outputs, targets, weights, **more)
            else:
                found = loss(outputs, targets)
            found.backward()
            optimizer.step()
            losses.append(found.item())
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


LOSSES = {
    "plain": ll.CrossEntropy(),
    "weighted": ll.CrossEntropy(0.1, [0.5, 2.0, 1.0]),
    "sum": ll.CrossEntropy(reduction="sum"),
    "function": focal,
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_that_of_a_loop_by_hand(backend: Any, name: str) -> None:
    losses, weights = by_hand(LOSSES[name])
    result = ll.run(SPEC, **said(backend.name, LOSSES[name]))
    np.testing.assert_allclose(result.losses, losses, rtol=1e-9, atol=1e-12)  # float64, in another order
    for key, array in weights.items():
        np.testing.assert_allclose(result.weights[key], array, rtol=1e-9, atol=1e-12)
    assert (np.diff(result.accuracies) != np.nan).all() and len(result.accuracies) == 2


def test_a_run_that_goes_on_mixes_the_same(tmp_path: Any) -> None:
    whole = ll.run(SPEC, **said("torch-eager", "cross_entropy"))
    ll.run(SPEC, **said("torch-eager", "cross_entropy", max_steps=5), checkpoints=tmp_path / "r")
    rest = ll.resume(tmp_path / "r", max_steps=10, data=arrays(), model=net, trust=True)
    assert rest.losses.tolist() == whole.losses.tolist()


def soft(outputs: Any, targets: Any) -> Any:
    return -(targets * torch.nn.functional.log_softmax(outputs, 1)).sum(1).mean()


@pytest.mark.parametrize("given", [False, True], ids=["the run's", "given again"])
def test_evaluate_gives_a_loss_of_one_s_own_the_shares_of_the_classes(backend: Any, given: bool) -> None:
    result = ll.run(SPEC, **said(backend.name, soft))
    x_train, y_train, x_test, y_test = arrays()
    few = (x_train, y_train, x_test[:CLASSES], y_test[:CLASSES])  # whose class numbers would be broadcast
    for data in (arrays(), few):
        due = result.evaluate(data, loss="cross_entropy").loss
        found = result.evaluate(data, **({"loss": soft} if given else {})).loss
        assert found == pytest.approx(due, rel=1e-6)


def test_more_outputs_than_classes_are_refused(backend: Any) -> None:
    wide = lambda: torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(net()[1].in_features, 5))  # noqa: E731
    with pytest.raises(ll.SpecError, match=r"answers with 5 numbers for 3 classes.*mixed images"):
        ll.run(SPEC, **said(backend.name, "cross_entropy", model=wide))


def test_learning_by_heart_refuses_it() -> None:
    with pytest.raises(ll.SpecError, match="overfit: mix has no meaning"):
        ll.overfit(SPEC, net, data=arrays(), mix=MIX)
