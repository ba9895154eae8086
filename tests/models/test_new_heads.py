"""A new head is of the old one's kind, or is refused; of images that do not fit the least size is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.models.users_callable import UsersCallable

torch = pytest.importorskip("torch")

from layered_lr_torch.heads import find_head_path, put_head  # noqa: E402
from layered_lr_torch.unused_layers import check_use, find_answering  # noqa: E402

nn = torch.nn
F = torch.nn.functional


class Cosine(nn.Linear):  # type: ignore[misc, name-defined]
    def forward(self, x: Any) -> Any:
        return 10 * F.linear(F.normalize(x), F.normalize(self.weight))


class Scaled(nn.Linear):  # type: ignore[misc, name-defined]
    def __init__(self, scale: float) -> None:
        super().__init__(6, 1000)
        self.scale = scale


class Net(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, fc: Any) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, 2)
        self.fc = fc

    def forward(self, x: Any) -> Any:
        return self.fc(self.body(x).relu().mean((2, 3)))


class TwoNames(Net):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 1000))
        self.head = self.fc


def hooked() -> Any:
    layer = nn.Linear(6, 1000)
    layer.register_forward_hook(lambda module, inputs, output: output * 100)
    return layer


def tied() -> Any:
    net = Net(nn.Linear(6, 1000))
    net.other = nn.Linear(6, 1000)
    net.fc.weight = net.other.weight
    return net


def replaced(model: Any, head: str = "fc") -> Any:
    put_head(model, find_head_path(model, head), 5)
    return model


def test_it_keeps_the_class_with_its_forward_pass() -> None:
    model = replaced(Net(Cosine(6, 1000, bias=False)), "auto")
    assert type(model.fc) is Cosine and model.fc.weight.shape == (5, 6) and model.fc.bias is None
    x = torch.randn(4, 3, 9, 9)
    assert model(x).abs().max() <= 10


def test_a_convolution_keeps_stride_and_padding() -> None:
    model = replaced(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1000, 1, 2, 1, padding_mode="reflect")), "1")
    assert model(torch.randn(2, 3, 9, 9)).shape == (2, 5, 5, 5)
    assert model[1].padding_mode == "reflect"


@pytest.mark.parametrize("head", ["auto", "fc", "head"])
def test_both_names_of_a_head_have_the_new_one(head: str) -> None:
    model = replaced(TwoNames(), head)
    assert model.head is model.fc and model.fc.out_features == 5
    check_use(model, 5, (3, 9, 9))


def scaled_from_outside() -> Any:
    model = Net(nn.Linear(6, 1000))
    model.fc.scale = 30.0
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Net(hooked()), "the layer has hooks"),
        (lambda: Net(Scaled(2.0)), "is a Scaled, whose constructor is its own"),
        (lambda: Net(nn.LazyLinear(1000)), "is lazy: it has no shape"),
        (lambda: Net(nn.utils.parametrizations.weight_norm(nn.Linear(6, 1000))), "computes its weight"),
        (tied, "shares a parameter with another module"),
        (scaled_from_outside, "the layer has 'scale', which a Linear has not"),
    ],
)
def test_what_a_new_layer_would_lose_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ll.SpecError, match=words) as refused:
        replaced(make())
    assert "Build the model for the data's classes" in str(refused.value)


def test_other_capitals_are_a_misspelling() -> None:
    net = Net(nn.Linear(6, 5))
    net.Fc = nn.Linear(6, 5)
    with pytest.raises(ll.SpecError, match=r"'Fc' .* never uses it. Did you mean to set 'fc'"):
        check_use(net, 5, (3, 9, 9))
    with pytest.raises(ll.SpecError, match=r"head='FC': .* Did you mean 'fc'"):
        find_head_path(Net(nn.Linear(6, 5)), "FC")


class Fixed(Net):
    def forward(self, x: Any) -> Any:
        assert x.shape[2:] == (16, 16), "wrong height"
        return super().forward(x)


@pytest.mark.parametrize(
    ("make", "side", "words"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(4), nn.Flatten(), nn.LazyLinear(5)), 6, ""),
        (
            lambda: Net(nn.Linear(6, 5)),
            2,
            "2x2 pixels are too small: the least that it takes is 3x3. Give image_size=3",
        ),
        (lambda: Fixed(nn.Linear(6, 5)), 24, "24x24 pixels do not fit: the least that it takes is 16x16"),
        (lambda: Net(nn.Linear(7, 5)), 24, ""),
    ],
)
def test_a_callables_least_size_is_said(make: Callable[[], Any], side: int, words: str) -> None:
    if not words:  # another size would not help
        check_use(make(), 5, (3, side, side))
        return
    with pytest.raises(ll.SpecError, match=words):
        check_use(make(), 5, (3, side, side))


class GoesOn(Net):
    """Computes with the numbers of its head."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 7))

    def forward(self, x: Any) -> Any:
        return super().forward(x).reshape(-1, 7)


@pytest.mark.parametrize("head", ["auto", "fc"])
def test_a_head_whose_outputs_the_model_goes_on_with_is_named(head: str) -> None:
    """The images were blamed."""
    given: Any = {"backend": "torch-eager", "max_steps": 1, "batch_size": 4, "progress": False, "device": "cpu"}
    with pytest.raises(ll.SpecError, match=rf"head='{head}': with 10 outputs at 'fc', .* the old number of outputs"):
        ll.run(ll.Spec(ll.SGD(0.1)), model=GoesOn, head=head, **given)


class SecondHead(Net):
    """The layer that answers is not the last one of the model."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 1000))
        self.aux = nn.Linear(6, 7)


class Unseen(SecondHead):
    """Nobody can see which layer answers before it has numbers."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) if float(x.detach().sum()) < 1e30 else x


GIVEN: Any = {"backend": "torch-eager", "max_steps": 1, "batch_size": 4, "progress": False, "device": "cpu"}


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (ll.Spec(ll.SGD(0.1), [ll.Group("head")]), {}),
        (ll.Spec(ll.SGD(0.1), [ll.Group(ll.where("backbone"), name="body")]), {}),
        (ll.Spec(ll.SGD(0.1), no_weight_decay="head"), {}),
        (ll.Spec(ll.SGD(0.1), phases=[ll.Phase("1 step", frozen="backbone"), ll.Phase()]), {}),
        (ll.Spec(ll.SGD(0.1)), {"initialise": {"head": "xavier_normal"}}),
    ],
)
def test_words_of_another_layer_than_the_given_head_are_refused(spec: ll.Spec, options: dict[str, Any]) -> None:
    """The group of the head trained nothing, and the new head trained with the rate of the backbone."""
    with pytest.raises(ll.SpecError, match=r"head='fc': the word '\w+' stands for .*'aux'"):
        ll.run(spec, model=Unseen, head="fc", **GIVEN, **options)
    named = ll.Spec(ll.SGD(0.1), [ll.Group("fc", name="head", lr_scale=2.0)], phases=[ll.Phase(trained="head")])
    assert ll.run(named, model=Unseen, head="fc", **GIVEN).plan.groups[0].parameters == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("head", ["auto", "fc"])
def test_words_stand_for_the_layer_that_answers(head: str) -> None:
    """The last linear layer was taken, whatever the forward pass does."""
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("backbone"), ll.Group("head")])
    plan = ll.run(spec, model=SecondHead, head=head, **GIVEN).plan
    assert plan.groups[1].parameters == ("fc.weight", "fc.bias") and "aux.bias" in plan.groups[0].parameters
    assert plan.parameters[-4].answers and ll.plan_from_dict(plan.to_dict()).groups == plan.groups
    assert ll.plan(spec, model=SecondHead, head=head, max_steps=1).groups == plan.groups


class Gated(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 10)
        self.body, self.gate = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x: Any) -> Any:
        maps = self.body(x)
        return self.fc((maps * self.gate(maps).sigmoid()).mean((2, 3)))


class InPlace(Gated):
    def forward(self, x: Any) -> Any:
        answer = torch.zeros(len(x), 10)
        answer[:] = super().forward(x)
        answer.mul_(2.0)
        return answer.view(-1, 10)


class OfItsShape(Gated):
    """Takes the shape of a layer's result for the answer's, and none of its numbers."""

    def forward(self, x: Any) -> Any:
        maps = self.gate(self.body(x)).mean((2, 3))
        return self.fc(maps) + maps.new_zeros(len(x), 10) + torch.ones_like(maps[:, :1])


class Normed(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(self.fc)


class Convolved(Gated):
    """Answers by a convolution that is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 10, 3), nn.Linear(10, 10)

    def forward(self, x: Any) -> Any:
        return self.body(x * self.fc(x.mean((1, 2, 3))[:, None].expand(-1, 10)).mean()).mean((2, 3))


class Functional(Gated):
    def forward(self, x: Any) -> Any:
        maps = self.body(x).mean((2, 3)) * self.gate.weight.sum()
        return nn.functional.normalize(maps) @ nn.functional.normalize(self.fc.weight).T * 30


class ByHand(Gated):
    def forward(self, x: Any) -> Any:
        maps = self.body(x).mean((2, 3)) * self.gate.weight[:1, :, 0, 0]
        return (maps[:, None] * self.fc.weight).sum(-1)


class Distances(Gated):
    def forward(self, x: Any) -> Any:
        return -torch.cdist(self.gate(self.body(x)).mean((2, 3)), self.fc.weight)


class Added(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 10)

    def forward(self, x: Any) -> Any:
        maps = self.body(x).mean((2, 3))
        return (self.fc(maps) + self.other(maps * self.gate.weight.sum())) / 2


class InTraining(Added):
    """Its second head is an auxiliary one."""

    def forward(self, x: Any) -> Any:
        maps = self.body(x).mean((2, 3))
        return self.fc(maps) + self.other(maps) if self.training else self.fc(maps)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (InTraining, ("fc",)),
        (Gated, ("fc",)),
        (InPlace, ("fc",)),
        (OfItsShape, ("fc",)),
        (Normed, ("fc",)),
        (Convolved, ("body",)),
        (Functional, ("fc",)),
        (ByHand, ("fc",)),
        (Distances, ("fc",)),
        (Added, ("fc", "other")),
        (Unseen, None),
    ],
)
def test_the_layers_that_answer_are_seen(make: Callable[[], Any], wanted: tuple[str, ...] | None) -> None:
    assert find_answering(make(), (3, 9, 9)) == wanted


def test_a_new_head_replaces_the_layer_that_answers() -> None:
    model = UsersCallable(Gated, 3, (3, 9, 9), "auto")()
    assert model.fc.out_features == 3 and model.gate.out_channels == 4
    with pytest.raises(ll.SpecError, match="head='auto': 'body' answers, which is a Conv2d"):
        UsersCallable(Convolved, 3, (3, 9, 9), "auto")()
    with pytest.raises(ll.SpecError, match="'fc' and 'other' make the answer together"):
        UsersCallable(Added, 3, (3, 9, 9), "auto")()


@pytest.mark.parametrize("word", ["head", "backbone"])
def test_a_word_is_refused_where_nobody_can_tell_which_layer_answers(word: str) -> None:
    with pytest.raises(
        ll.SpecError, match=rf"the word '{word}': nobody can tell .*: 'gate' or 'fc'. Write the layer's"
    ):
        ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(word)]), Gated())


def test_layers_that_answer_together_are_the_head() -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head")])
    assert len(ll.run(spec, model=Added, **GIVEN).plan.groups[0].parameters) == 4
