"""Targets that are no class numbers: the same as a loop by hand in plain torch, on each backend, or a clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, load_dataset
from tests.support.number_targets import CASES, IMAGES, MASKS, VALUES, F, error, halves, net, torch, train


def by_hand(case: str) -> tuple[list[float], dict[str, Any]]:
    make, targets, loss = CASES[case]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    losses = []  # fused, as the library's updates are: torch's other kernels differ by a last bit
    order = Batches(load_dataset(halves(np.arange(40))), 8, 0, augment=False)
    wanted = torch.from_numpy(targets.astype(np.int64 if targets is MASKS else np.float32))
    for epoch in range(2):
        for images, numbers in order.epoch(epoch):
            optimizer.zero_grad()
            value = loss(model(torch.from_numpy(images)), wanted[torch.from_numpy(numbers)])
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_torch_trains_bitwise_as_a_loop_by_hand(case: str) -> None:
    losses, weights = by_hand(case)
    result = train(case)
    assert result.losses.tolist() == losses and not len(result.accuracies) and "accuracy" not in str(result)
    for name, array in weights.items():
        np.testing.assert_array_equal(result.weights[name], array)


@pytest.mark.parametrize(
    "case", ["labels", "masks", *(pytest.param(case, marks=pytest.mark.exhaustive) for case in ("values", "one value"))]
)
def test_each_backend_trains_so_within_rounding(case: str, backend: Any) -> None:
    losses, weights = by_hand(case)
    result = train(case, backend.name)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)  # sums of 256 products in another order
    for name, array in weights.items():
        np.testing.assert_allclose(result.weights[name], array, rtol=1e-4, atol=1e-5)  # likewise, after 8 updates
    np.testing.assert_allclose(result.logged["test loss"], train(case).logged["test loss"], rtol=1e-4)  # likewise


def test_the_parts_of_a_batch_make_the_mean_of_the_batch() -> None:
    whole, parts = train("values", batch_size=16), train("values", accumulate_steps=2)
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-6)  # the mean of two means
    with pytest.raises(ll.SpecError, match="mean over 4 parts"):
        train("masks", accumulate_steps=2, loss=lambda outputs, targets: F.cross_entropy(
            outputs, targets, torch.tensor([0.1, 1.0, 9.0]), ignore_index=255))  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_the_test_set_stands_where_there_is_no_accuracy(case: str) -> None:
    result, (make, targets, loss) = train(case), CASES[case]
    model = make()
    model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
    wanted = torch.from_numpy(targets[32:].astype(np.int64 if targets is MASKS else np.float32))
    with torch.no_grad():  # the 8 test images are one batch
        expected = float(loss(model(torch.from_numpy(IMAGES[32:])), wanted))
    rows = result.logged["test loss"]
    assert rows[:, 0].tolist() == [4, 8] and rows[-1, 1] == pytest.approx(expected, rel=1e-6)  # another order of sums
    assert f"test loss {expected:.6g} after 8 steps" in str(result)


def test_the_loss_of_the_test_set_counts_each_image_once() -> None:
    mean = ll.LossFunction(F.mse_loss)
    whole, parts = (train("values", loss=mean, batch_size=size, epochs=1, max_steps=1) for size in (8, 5))
    for result in (whole, parts):  # 8 images in batches of 5 are 5 and 3
        with torch.no_grad():
            model = net(2)
            model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
            expected = float(F.mse_loss(model(torch.from_numpy(IMAGES[32:])), torch.from_numpy(VALUES[32:])))
        assert result.logged["test loss"][-1, 1] == pytest.approx(expected, rel=1e-6)
    total = ll.LossFunction(lambda outputs, targets: F.mse_loss(outputs, targets, reduction="sum"), reduction="sum")
    result = train("values", loss=total, batch_size=5, epochs=1, max_steps=1)
    model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
    with torch.no_grad():
        answered = model(torch.from_numpy(IMAGES[32:]))
    expected = float(F.mse_loss(answered, torch.from_numpy(VALUES[32:]), reduction="sum"))
    assert result.logged["test loss"][-1, 1] == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_the_test_set_may_decide(tmp_path: Any) -> None:
    stop = ll.EarlyStop("test loss", mode="min", target=100.0)
    plateau = ll.ReduceLROnPlateau(
        "min", factor=0.5, patience=0, threshold=1e9, threshold_mode="abs", metric="test loss"
    )
    kept = ll.Checkpoints(tmp_path / "run", best_metric="test loss", best_mode="min")
    spec = ll.Spec(ll.SGD(0.05), schedule=plateau)
    given = {"model": lambda: net(2), "data": halves(VALUES), "loss": torch.nn.MSELoss(), "batch_size": 8}
    result = ll.run(spec, **given, epochs=3, checkpoints=kept, ema_decay=0.5, progress=False)
    assert result.rates["rest"][-1] == 0.025, "nothing is better by so much: it was halved after the second epoch"
    assert len(result.logged["ema test loss"]) == 3
    losses = result.logged["test loss"]
    best = ll.Result.load(tmp_path / "run", checkpoint="best")
    assert len(best.losses) == losses[losses[:, 1].argmin(), 0]
    assert len(ll.run(spec, **given, epochs=3, early_stop=stop, progress=False).losses) == 4
    with pytest.raises(ll.SpecError, match="'test loss' is measured already"):
        train("values", metrics={"test loss": error})
    logged = (tmp_path / "run" / "logged.csv").read_text()
    assert logged.count(",test loss,") == 3


def test_metrics_decide_where_there_is_no_accuracy(tmp_path: Any) -> None:
    stop = ll.EarlyStop("error", mode="min", target=100.0)
    events: list[float] = []

    class Hear(ll.Callback):
        def on_evaluation(self, event: Any) -> None:
            events.append(event.accuracy)

    options = {"metrics": {"error": error}, "early_stop": stop, "callbacks": [Hear()]}
    result = train("values", checkpoints=tmp_path / "run", **options)
    assert len(result.losses) == 4 and result.logged["error"].shape == (1, 2) and np.isnan(events).all()
    assert '"accuracy"' not in (tmp_path / "run" / "events.jsonl").read_text()
    again = ll.resume(tmp_path / "run", model=CASES["values"][0], data=halves(VALUES), loss=torch.nn.MSELoss(),
                      early_stop=None, metrics={"error": error}, progress=False)  # fmt: skip
    assert again.losses.tolist() == train("values").losses.tolist()
    assert ll.Result.load(tmp_path / "run", checkpoint="best").losses.tolist()


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no loss": ("values", {"loss": "cross_entropy"}, "the targets are 2 values for each image.*loss=torch.nn.MSELoss"),
    "one-hot": ("labels", {"loss": "cross_entropy"}, r"y.argmax\(1\) of one-hot rows"),
    "mix": ("values", {"mix": ll.Mix(mixup=0.2)}, "mix is for class numbers"),
    "moved": ("masks", {"augment": True}, "augment would move or resize the images"),
    "resized": ("masks", {"image_size": 16}, "image_size would move or resize the images"),
    "accuracy": ("values", {"early_stop": ll.EarlyStop(patience=1)}, "'accuracy' is not measured"),
    "all with all": (
        "one value",
        {"loss": lambda outputs, targets: ((outputs - targets) ** 2).mean()},
        "each output is compared with all targets",
    ),
    "torch's warning": ("one value", {"loss": torch.nn.MSELoss()}, "Using a target size"),
    "no class": ("masks", {"loss": torch.nn.CrossEntropyLoss()}, "255 is out of bounds"),
}


@pytest.mark.parametrize(("case", "other", "words"), WRONG.values(), ids=WRONG)
def test_what_does_not_go_with_such_targets_is_refused(case: str, other: dict[str, Any], words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        train(case, **other)


BAD: dict[str, tuple[Any, str]] = {
    "NaN": (np.where(np.arange(80).reshape(40, 2) == 6, np.nan, VALUES), "NaN, infinite.*the first at index 3"),
    "whole numbers": (np.full((40, 2), 3), "Several labels of an image are 0 and 1"),
    "true and false": (MASKS > 1, "makes a class for each pixel"),
    "nothing but ignored": (np.full((40, 8, 8), 255, np.uint8), "the masks have no class"),
}


@pytest.mark.parametrize(
    ("case", "kind", "outputs"),
    [
        ("values", "A model that answers values for each image", "| values of an image | 2 |"),
        ("masks", "A model that answers a class for each pixel", "| classes of a pixel | 3 |"),
    ],
)
def test_a_card_says_what_the_model_answers_and_shows_what_works(case: str, kind: str, outputs: str) -> None:
    result = train(case, max_steps=1, epochs=None)
    card = result.card()
    assert kind in card and outputs in card
    assert "result.predict" in card and "result.export" in card
    assert sorted(result.weights) == sorted(CASES[case][0]().state_dict())


@pytest.mark.parametrize(("targets", "words"), BAD.values(), ids=BAD)
def test_wrong_targets_are_refused(targets: Any, words: str) -> None:
    with pytest.raises(ll.DataError, match=words):
        load_dataset(halves(targets))


def test_samples_and_arrays_have_the_same_targets() -> None:
    class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, part: slice, targets: Any) -> None:
            self.images, self.targets_of = IMAGES[part], targets[part]

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Any:
            return self.images[index], torch.from_numpy(np.array(self.targets_of[index]))

    for targets in (VALUES, VALUES[:, 0], MASKS):
        read = load_dataset((Pairs(slice(32), targets), Pairs(slice(32, 40), targets)))
        given = load_dataset(halves(targets))
        assert read.facts == given.facts
        np.testing.assert_array_equal(read.y_train, given.y_train)
        assert len(read.x_train[np.arange(2)]) == 2  # each sample's own target is that of the list
