"""A head that was set under a misspelt name, or for other classes, is found before anything trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.isolation import value_of, values_of

torch = pytest.importorskip("torch")

from layered_lr_torch.unused_layers import check_use  # noqa: E402

SHAPE = (3, 8, 8)
nn = torch.nn


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A body and a classifier; tests set more."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(6, classes)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.body(x))


class Auxiliary(Net):
    """Its second head, whose name is near to the first one's, is used in training alone."""

    def __init__(self) -> None:
        super().__init__(4)
        self.classifier2 = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        maps = self.body(x)
        return (self.classifier(maps), self.classifier2(maps)) if self.training else self.classifier(maps)


def misspelt(classes: int) -> Net:
    net = Net(classes)
    net.classifer = nn.Linear(6, 4)
    return net


class InATable(Net):
    """Answers with no tensor."""

    def forward(self, x: Any) -> Any:
        return {"logits": super().forward(x)}


def misspelt_in_a_table() -> Net:
    model = InATable(1000)
    model.classifer = nn.Linear(6, 4)
    return model


def in_sequence() -> Net:
    net = Net(1000)
    net.clasifier = nn.Sequential(nn.Dropout(), nn.Linear(6, 4))
    return net


class OneByOne(Net):
    """Calls a function of Python for each number, which torch cannot do with tensors that have none."""

    def forward(self, x: Any) -> Any:
        maps = self.body(x)
        return self.classifier(maps + maps.detach().clone().apply_(lambda each: each * 2))


def test_what_needs_numbers_is_left_to_the_run() -> None:
    check_use(OneByOne(4), 4, SHAPE)


REFUSED = [
    (lambda: misspelt(1000), "'classifer' has a layer for the data's 4 classes .* answers with 1000 .*'classifier'"),
    (lambda: misspelt(4), "'classifer' .* never uses it. Did you mean to set 'classifier'"),
    (
        misspelt_in_a_table,
        r"'classifer' .* the model answers with something else than a tensor of shape \(images, numbers\)",
    ),
    (in_sequence, r"'clasifier' has a layer .*\(clasifier.1\).* Did you mean to set 'classifier'"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_a_head_that_is_none_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        check_use(make(), 4, SHAPE)


def test_the_layer_that_answers_is_named() -> None:
    net = Net(1000)
    net.projection = nn.Linear(6, 4)
    with pytest.raises(ll.SpecError, match=r"take it away\. head='classifier' replaces the layer that answers now\.$"):
        check_use(net, 4, SHAPE)


def spare() -> Net:
    net = Net(4)
    net.projection = nn.Linear(6, 4)  # no name is near
    return net


class Functional(nn.Module):  # type: ignore[misc, name-defined]
    """Uses its layer's weight, and not the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.heads = nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x.flatten(1), self.head.weight) + self.heads(x.flatten(1))


class Failing(Net):
    """Needs the numbers that the check does not have."""

    def forward(self, x: Any) -> Any:
        return self.classifier(self.body(x)) if x.sum().item() < 1e30 else x


@pytest.mark.parametrize("make", [lambda: Net(4), spare, Auxiliary, Functional, lambda: Failing(5)])
def test_other_models_pass_and_stay_as_they_are(make: Any) -> None:
    model = make()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    state = torch.get_rng_state()
    check_use(model, 4, SHAPE)
    after = model.state_dict(keep_vars=True)
    assert all(id(after[name]) == key and (after[name] == value).all() for name, (key, value) in before.items())
    assert model.training and (torch.get_rng_state() == state).all()


def test_a_head_for_more_classes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    check_use(Net(5), 4, SHAPE)
    said = capsys.readouterr().err
    assert "answers by 'classifier' with 5 numbers for an image, and the data has 4 classes" in said
    assert "A run with head='auto' (layered-lr run --head auto) puts" in said  # other commands have no such option
    check_use(Net(4), 4, SHAPE)
    assert not capsys.readouterr().err


def make_misspelt() -> Net:
    return misspelt(1000)


@pytest.mark.parametrize("backend", ["torch-eager", "oneflow-eager"])
def test_a_run_is_refused_on_every_framework(backend: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(backend.partition("-")[0])
    images, labels = np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 4
    with pytest.raises(ll.SpecError, match="'classifer' has a layer for the data's 4 classes"):
        ll.run(backend=backend, spec=ll.Spec(ll.SGD(0.1)), model=make_misspelt, data=(images, labels) * 2, batch_size=4)


def look_at_oneflow(kind: str) -> str:
    import layered_lr as ll
    from layered_lr_oneflow.unused_layers import check_use, find_answering
    from tests.support.gated_oneflow import oneflow_model

    model = oneflow_model(kind)
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    try:
        found = str(check_use(model, 4, (3, 8, 8)))
        assert str(find_answering(model, (3, 8, 8))) == found
    except ll.SpecError as error:
        found = str(error)
    after = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert all((after[name] == array).all() for name, array in before.items())
    assert model.seen == [] and model.training and not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    return found


@pytest.mark.usefixtures("oneflow")
def test_a_oneflow_module_is_looked_at_too() -> None:
    right, wrong, in_training = values_of(look_at_oneflow, [("right",), ("misspelt",), ("in training",)])
    assert right == in_training == "('classifier',)"
    assert "'classifer' has a layer for the data's 4 classes" in wrong and "answers with 1000 numbers" in wrong


def run_oneflow_by_words() -> tuple[str, ...]:
    import functools

    import numpy as np

    import layered_lr as ll
    from tests.support.gated_oneflow import oneflow_model

    images, labels = np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 4
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("backbone"), ll.Group("head")])
    given = {"data": (images, labels, images, labels), "batch_size": 4, "max_steps": 1, "progress": False}
    plan = ll.run(spec, "oneflow-eager", functools.partial(oneflow_model, "right"), **given).plan  # type: ignore[arg-type]
    return plan.groups[1].parameters


@pytest.mark.usefixtures("oneflow")
def test_words_mean_the_layer_of_a_oneflow_module_that_answers() -> None:
    assert tuple(value_of(run_oneflow_by_words)) == ("classifier.weight", "classifier.bias")
