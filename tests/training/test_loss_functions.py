"""Losses that the user has written: the same on each backend, as in a loop by hand in plain torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import CLASSES, arrays

torch = pytest.importorskip("torch")
F = torch.nn.functional
SPEC = ll.Spec(ll.SGD(0.1))


def focal(outputs: Any, targets: Any) -> Any:
    """Of Lin et al., 2017, with gamma 2."""
    log_p = F.log_softmax(outputs, 1).gather(1, targets.unsqueeze(1)).squeeze(1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def brier(outputs: Any, targets: Any) -> Any:
    return F.mse_loss(outputs.softmax(1), F.one_hot(targets, CLASSES).to(outputs.dtype))


def summed(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets, reduction="sum")


def distilled(outputs: Any, targets: Any) -> Any:
    """With targets that the outputs themselves are, and that let no gradient through."""
    with torch.no_grad():
        soft = outputs.clone()
    return F.cross_entropy(outputs, targets) + F.mse_loss(outputs * 2, soft)


def divided(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets, reduction="sum") / torch.tensor(outputs.shape[0])


LOSSES: dict[str, Any] = {
    "distilled": distilled,
    "divided": divided,
    "focal": focal,
    "brier": brier,
    "weighted": torch.nn.CrossEntropyLoss(torch.tensor([0.5, 2.0, 1.0]), label_smoothing=0.1),
    "ignored": torch.nn.CrossEntropyLoss(ignore_index=1),
    "first ignored": torch.nn.CrossEntropyLoss(ignore_index=0),
    "binary": lambda outputs, targets: F.binary_cross_entropy_with_logits(
        outputs, F.one_hot(targets, CLASSES).to(outputs.dtype), pos_weight=torch.tensor([2.0, 1.0, 0.5])
    ),
    "probabilities": lambda outputs, targets: F.binary_cross_entropy(
        outputs.sigmoid(), F.one_hot(targets, CLASSES).to(outputs.dtype)
    ),
    "saturated": lambda outputs, targets: F.binary_cross_entropy(
        torch.where(targets.unsqueeze(1) > 0, outputs.clamp(0, 1), outputs.sigmoid()),
        F.one_hot(targets, CLASSES).to(outputs.dtype) * 0.9,
        torch.tensor([0.5, 2.0, 1.0], dtype=outputs.dtype),
    ),
    "by number": lambda outputs, targets: -outputs.log_softmax(1)[torch.arange(len(outputs)), targets].mean(),
    "sum": ll.LossFunction(summed, reduction="sum"),
}


def net() -> Any:
    """A small model that begins the same each time."""
    torch.manual_seed(3)
    inputs = int(np.prod(arrays()[0].shape[1:]))
    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(inputs, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))


def said(backend: str, loss: Any, **other: Any) -> dict[str, Any]:
    fixed = {"data": arrays(), "epochs": 2, "batch_size": 8, "precision": "float64", "augment": False, "model": net}
    return {**fixed, "backend": backend, "loss": loss, "progress": False, **other}


def by_hand(loss: Any) -> tuple[list[float], dict[str, Any]]:
    from layered_lr.data import Batches, load_dataset

    function = loss.function if isinstance(loss, ll.LossFunction) else loss
    if isinstance(function, torch.nn.Module):
        function = function.double()
    torch.manual_seed(0)
    model = net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    order = Batches(load_dataset(arrays(), None, None), 8, 0, augment=False)
    for epoch in range(2):
        for images, labels in order.epoch(epoch):
            optimizer.zero_grad()
            found = function(model(torch.from_numpy(images).double()), torch.from_numpy(labels))
            found.backward()
            optimizer.step()
            losses.append(found.item())
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", LOSSES)
def test_each_is_that_of_a_loop_by_hand(backend: Any, name: str) -> None:
    losses, weights = by_hand(LOSSES[name])
    result = ll.run(SPEC, **said(backend.name, LOSSES[name]))
    np.testing.assert_allclose(result.losses, losses, rtol=1e-9, atol=1e-12)  # float64, in another order
    for key, array in weights.items():
        np.testing.assert_allclose(result.weights[key], array, rtol=1e-9, atol=1e-12)
    assert result.evaluate(data=arrays()).loss == pytest.approx(_of_test_set(name, result), rel=1e-9)


def _of_test_set(name: str, result: Any) -> float:
    model = net().double()
    model.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in result.weights.items()})
    *_, images, labels = arrays()
    loss = LOSSES[name]
    function = loss.function if isinstance(loss, ll.LossFunction) else loss
    with torch.no_grad():
        return float(function(model(torch.from_numpy(images).double()), torch.from_numpy(labels)))


def test_parts_of_a_batch_have_its_mean(backend: Any) -> None:
    losses, _ = by_hand(focal)
    result = ll.run(SPEC, **said(backend.name, focal, batch_size=4, accumulate_steps=2))
    np.testing.assert_allclose(result.losses, losses, rtol=1e-9, atol=1e-12)  # as above


def pairs(outputs: Any, targets: Any) -> Any:
    """Of each image with all others of its batch."""
    return F.cross_entropy(outputs, targets) + torch.cdist(outputs, outputs).mean()


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="sum"),
        partial(F.cross_entropy, weight=torch.tensor([0.5, 2.0, 1.0])),
        torch.nn.CrossEntropyLoss(ignore_index=1),
        pairs,
    ],
)
def test_what_is_no_mean_over_the_images_is_refused_in_parts(loss: Any) -> None:
    assert len(ll.run(SPEC, **said("torch-eager", loss, max_steps=1, precision="float32")).losses) == 1
    with pytest.raises(ll.SpecError, match="would be trained with another loss"):
        ll.run(SPEC, **said("torch-eager", loss, max_steps=1, precision="float32", batch_size=4, accumulate_steps=2))


def test_a_run_that_goes_on_keeps_its_loss(tmp_path: Any) -> None:
    whole = ll.run(SPEC, **said("torch-eager", focal))
    ll.run(SPEC, **said("torch-eager", focal, max_steps=5), checkpoints=tmp_path / "r")
    again = {"max_steps": 10, "data": arrays(), "model": net}
    with pytest.raises(ll.SpecError, match=r"loss='tests.*focal': a file names code to import"):
        ll.resume(tmp_path / "r", **again)
    rest = ll.resume(tmp_path / "r", **again, trust=True)
    assert rest.losses.tolist() == whole.losses.tolist()
    assert np.isnan(ll.Result.load(tmp_path / "r").evaluate(data=arrays(), model=net).loss)
    trusted = ll.Result.load(tmp_path / "r", trust=True).evaluate(data=arrays(), model=net)
    assert trusted.loss == whole.evaluate(data=arrays()).loss


def test_a_function_that_no_file_holds_is_asked_for(tmp_path: Any) -> None:
    loss = lambda outputs, targets: focal(outputs, targets)  # noqa: E731
    ll.run(SPEC, **said("torch-eager", loss, max_steps=5), checkpoints=tmp_path / "r")
    again = {"max_steps": 10, "data": arrays(), "model": net}
    with pytest.raises(ll.SpecError, match="the run's loss cannot be written down; give it again"):
        ll.resume(tmp_path / "r", **again)
    rest = ll.resume(tmp_path / "r", **again, loss=loss)
    assert rest.losses.tolist() == ll.run(SPEC, **said("torch-eager", focal)).losses.tolist()


@pytest.mark.parametrize(
    ("loss", "more", "match"),
    [
        (torch.nn.MSELoss, {}, r"MSELoss is a class; give an object of it, such as MSELoss\(\)"),
        (torch.nn.CrossEntropyLoss(reduction="none"), {}, "a number for each image"),
        (lambda outputs, targets: F.nll_loss(outputs, targets, reduction="none"), {}, r"shape \(8,\) for 8 images"),
        (lambda outputs, targets: focal(outputs, targets).detach(), {}, "has no gradient"),
        (lambda outputs, targets: focal(outputs, targets).item(), {}, "returned a float; must be a tensor"),
        (lambda outputs, targets: outputs.missing, {}, r"<lambda> of outputs \(8, 3\) and targets \(8,\) raised"),
        (lambda outputs: outputs, {}, "raised TypeError"),
        (torch.nn.CrossEntropyLoss(torch.ones(3)), {"accumulate_steps": 2}, "the class weights of CrossEntropyLoss"),
        (torch.nn.CrossEntropyLoss(reduction="sum"), {"accumulate_steps": 2}, "whose reduction is 'sum'"),
        (torch.nn.Linear(2, 2), {}, "Linear has parameters, which no group would train"),
        ("no_such_module:loss", {}, "loss='no_such_module:loss': must be package.module:name"),
        ("focal", {}, "loss must be 'cross_entropy', ll.CrossEntropy"),
        (3, {}, "loss must be 'cross_entropy'"),
        ({"function": focal, "reduction": "max"}, {}, "reduction must be 'mean', 'sum'"),
        ({"function": torch.nn.MSELoss(), "reduction": "sum"}, {}, "reduction='sum', but that of MSELoss is 'mean'"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, more: Any, match: str) -> None:
    with pytest.raises(ll.SpecError, match=match):
        ll.run(SPEC, **said("torch-eager", loss, **more))


def test_oneflow_refuses_what_it_cannot_compute(oneflow: Any) -> None:
    with pytest.raises(ll.Unsupported, match="multi_margin_loss: calls multi_margin_loss, in the function itself"):
        ll.run(SPEC, **said("oneflow-eager", F.multi_margin_loss))


def test_oneflow_refuses_a_loss_that_changes_by_itself(oneflow: Any) -> None:
    calls: list[int] = []

    def annealed(outputs: Any, targets: Any) -> Any:
        calls.append(1)
        return F.cross_entropy(outputs, targets) * len(calls)

    assert len(ll.run(SPEC, **said("torch-eager", annealed, max_steps=2)).losses) == 2
    with pytest.raises(ll.Unsupported, match="loss: annealed: gives another number for the same outputs and targets"):
        ll.run(SPEC, **said("oneflow-graph", annealed, max_steps=2))


class Counts:
    """Weighs differently after many batches."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, outputs: Any, targets: Any) -> Any:
        self.batches += 1
        return F.cross_entropy(outputs, targets) * (2.0 if self.batches > 50 else 1.0)


def test_a_loss_that_counts_is_told_what_helps_in_a_loss(oneflow: Any) -> None:
    with pytest.raises(
        ll.Unsupported, match=r"loss: Counts: .*: keep what changes in a buffer of the model"
    ) as said_of:
        ll.run(SPEC, **said("oneflow-eager", Counts(), max_steps=2))
    assert "(register_buffer)" not in str(said_of.value)


class Asks(torch.nn.Module):
    """Asks whether there is a gradient, which is so in training alone."""

    def forward(self, outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(outputs, targets) * (3.0 if outputs.requires_grad else 1.0)


class Hooks(torch.nn.Module):
    """Changes the gradient where there is one."""

    def forward(self, outputs: Any, targets: Any) -> Any:
        if outputs.requires_grad:
            outputs.register_hook(lambda gradient: gradient * 0.1)
        return F.cross_entropy(outputs, targets)


class Penalises(torch.nn.Module):
    """Adds the size of the gradient where there is one."""

    def forward(self, outputs: Any, targets: Any) -> Any:
        loss = F.cross_entropy(outputs, targets)
        if outputs.requires_grad:
            (gradient,) = torch.autograd.grad(loss, outputs, create_graph=True)
            return loss + gradient.square().sum()
        return loss


class Averages(torch.nn.Module):
    """Keeps an average of what it gets, from the first batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None)

    def forward(self, outputs: Any, targets: Any) -> Any:
        now = outputs.detach().mean(0)
        self.mean = now if self.mean is None else 0.5 * self.mean + 0.5 * now
        return F.cross_entropy(outputs - self.mean, targets)


class Drops(torch.nn.Module):
    """Drops in training mode, in which a loss stays unless it is brought into the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(self.drop(outputs), targets)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (Asks(), "computes something else where its outputs have no gradient"),
        (Hooks(), "calls register_hook"),
        (Penalises(), "cannot be translated"),
        (Averages(), "another number for the same outputs and targets"),
        (Drops(), "another number for the same outputs and targets"),
    ],
)
def test_a_loss_that_does_more_than_its_evaluation_shows_is_refused(loss: Any, why: str) -> None:
    from layered_lr_torch.trace_model import trace_loss

    with pytest.raises(ll.Unsupported, match=why):
        trace_loss(loss, np.ones((4, 3), "float32") * np.arange(3, dtype="float32"), np.arange(4) % 3)


def test_a_loss_may_change_its_outputs_and_keeps_its_mode() -> None:
    from layered_lr_torch.trace_model import trace_loss

    def scaled(outputs: Any, targets: Any) -> Any:
        outputs *= 2
        return F.cross_entropy(outputs, targets)

    for loss in (scaled, Drops().eval()):
        graph = trace_loss(loss, np.ones((4, 3), "float32"), np.arange(4) % 3)
        assert not any(node.may_draw for node in graph.training.nodes)


def test_a_loss_that_is_nan_for_the_example_is_translated() -> None:
    from layered_lr_torch.trace_model import trace_loss

    graph = trace_loss(torch.nn.CrossEntropyLoss(ignore_index=0), np.zeros((4, 3), "float32"), np.zeros(4, np.int64))
    assert np.isnan(graph.example[1][0])


def test_several_outputs_with_a_loss_of_their_own_are_refused_with_the_datas_classes(backend: Any) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Any) -> Any:
            return self.inner(x), self.inner(x)

    with pytest.raises(ll.SpecError, match=r"returned a tuple for 8 images; must be a tensor of shape \(8, 3\)"):
        ll.run(SPEC, **said(backend.name, lambda outputs, targets: F.cross_entropy(outputs[0], targets), model=Twice))


def test_a_oneflow_model_has_a_loss_of_oneflow(oneflow: Any) -> None:
    def native() -> Any:
        model = oneflow.nn.Sequential(oneflow.nn.Flatten(1), oneflow.nn.Linear(int(np.prod(arrays()[0].shape[1:])), 3))
        for parameter in model.parameters():
            oneflow.nn.init.zeros_(parameter)
        return model

    for backend in ("oneflow-eager", "oneflow-graph"):
        found = [
            ll.run(SPEC, **said(backend, loss, model=native))
            for loss in (oneflow.nn.functional.cross_entropy, oneflow.nn.CrossEntropyLoss(), "cross_entropy")
        ]
        for result in found[:2]:
            np.testing.assert_allclose(result.losses, found[2].losses, rtol=1e-12)  # the same function


def test_compare_judges_with_it(oneflow: Any) -> None:
    comparison = ll.compare(
        SPEC, backends=("torch-eager", "oneflow-graph"), model=net, loss=focal, data=arrays(), steps=4, batch_size=8,
        quick=True,
    )  # fmt: skip
    assert comparison.pair("torch-eager", "oneflow-graph").verdict.kind == "same within rounding", str(comparison)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_oneflow_refuses_it_in_parts_too(oneflow: Any, precision: str) -> None:
    wanted = said("oneflow-eager", torch.nn.CrossEntropyLoss(ignore_index=1), precision=precision, batch_size=4)
    with pytest.raises(ll.SpecError, match="would be trained with another loss"):
        ll.run(SPEC, **wanted, accumulate_steps=2)
