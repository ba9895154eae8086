"""Models by name: every classifier of the installed torchvision, built without numbers; heads, sizes, names."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from layered_lr.models.answering_layer import find_head
from layered_lr.models.zoo import ZooFacts
from layered_lr.training.chosen_model import choose_model
from layered_lr.training.options import RunOptions
from tests.support.widths import keep_some

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from layered_lr_torch import zoo, zoo_building  # noqa: E402
from layered_lr_torch.heads import count_outputs  # noqa: E402

DIGITS = ll.load_dataset("digits").facts
BOTH = ll.Spec(ll.SGD(0.1), [ll.Group("backbone", lr_scale=0.1), ll.Group("head")])


@pytest.mark.slow
@pytest.mark.parametrize("part", keep_some(range(4), lambda part: part == 0))
def test_every_classifier_of_torchvision_is_built_with_its_head(part: int) -> None:
    """The rule by names and shapes, which a spec's words follow, finds the layer that has an output for each class."""
    names = zoo.list_names()
    assert len(names) >= 80 and "resnet18" in names and not any("raft" in name or "_3d" in name for name in names)
    for name in names[part::4]:
        outputs = zoo_building.find_outputs(name, zoo_building._optional_arguments(name))
        model = zoo_building._empty(name, tuple(zoo_building._optional_arguments(name).items()))
        parameters = [ll.Parameter(each, tuple(tensor.shape)) for each, tensor in model.named_parameters()]
        assert outputs == [find_head(parameters)], name  # one alone: there are no auxiliary heads
        plan = ll.resolve(BOTH, parameters)
        assert [group.name for group in plan.groups] == ["backbone", "head"], name  # and no rest


@pytest.mark.parametrize(
    ("name", "least"), [("squeezenet1_1", 17), ("alexnet", 63), ("vgg11", 32), ("googlenet", 15), ("resnet18", 1)]
)
def test_the_least_size_is_that_of_a_real_forward_pass(name: str, least: int) -> None:
    assert zoo_building.find_least_size(name) == least
    if name in ("squeezenet1_1", "googlenet"):
        model = zoo_building.make(name, 3, zoo_building.find_options(name, (3, least, least)) or {}).train()
        assert model(torch.zeros(2, 3, least, least)).shape == (2, 3)
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 3, least - 1, least - 1))


class Careful(torch.nn.Module):
    """Turns autocast off for its own device, as attention of efficientvit does."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.flatten(1))


def test_a_size_is_found_for_a_model_that_names_its_device_to_autocast() -> None:
    empty = zoo_building.make_empty(Careful)
    assert zoo_building.takes(empty, (3, 2, 2))
    assert not zoo_building.takes(empty, (3, 2, 3))
    assert zoo_building.takes(empty, (3, 2, 2))  # as it was


def chosen(**options: Any) -> Any:
    made = choose_model(RunOptions(**options), DIGITS)
    parameters = made.list_parameters()
    return made.source() if parameters is None and callable(made.source) else parameters


REFUSED = [
    ({"model": "resnet81"}, "Did you mean 'resnet18'"),
    ({"model": "nothing_like_it_at_all"}, "one of torchvision's"),
    (
        {"model": "alexnet"},
        "images of 32x32 pixels are too small: the least that it takes is 63x63. Give image_size=63",
    ),
    ({"model": "maxvit_t"}, "the least that it takes is 221x221"),
    ({"model": "vit_b_16", "image_size": 40}, "do not fit: the least that it takes is 16x16. Give image_size=48"),
    ({"model": "resnet18", "head": "fcc"}, "head='fcc': the model has no module of that path. Did you mean 'fc'"),
    ({"model": "resnet18", "head": "layer1"}, "is a Sequential; must be a linear layer"),
    ({"model": "alexnet", "image_size": 64, "head": "classifier"}, "Did you mean 'classifier.6'"),
    ({"model": "alexnet", "image_size": 64, "head": "classifier.1"}, "does not run with another layer there"),
    ({"model": "mobilenet_v2", "head": "classifier"}, "the head of model 'mobilenet_v2' is 'classifier.1'"),
    ({"model": "resnet18", "dropout": 0.3}, "the model has no dropout; leave it out"),
    ({"model": "alexnet", "image_size": 64, "dropout": {"classifer": 0.1}}, "Did you mean 'classifier'"),
    ({"model": "mobilenet_v2", "dropout": {"x": 0.1}}, "Its dropouts are classifier.0"),
    ({"model": torch.nn.Identity, "head": "auto"}, "the model has no linear layer"),
    ({"model": "timm:resnet18"}, "timm"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    if str(options["model"]).startswith("timm:") and zoo.list_timm_names():
        pytest.skip("timm is installed")
    with pytest.raises(ll.LayeredLRError) as refused:
        chosen(**options)
    assert words in str(refused.value)


def test_images_that_are_not_square_are_named() -> None:
    facts = DIGITS._replace(image_shape=(3, 32, 64))
    with pytest.raises(ll.SpecError, match=r"32x64 pixels are not square, and it takes square ones alone: .*size=64"):
        choose_model(RunOptions(model="vit_b_16"), facts)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ll.SpecError, match="takes images of 3 channels, but the data has 1"):
        choose_model(RunOptions(model="resnet18"), DIGITS._replace(image_shape=(1, 32, 32)))


def test_a_vision_transformer_is_made_for_the_size_of_the_images() -> None:
    names = {parameter.name: parameter.shape for parameter in chosen(model="vit_b_32", image_size=64)}
    assert names["encoder.pos_embedding"] == (1, 5, 768) and names["heads.head.weight"] == (10, 768)


def make_net() -> Any:
    body = torch.nn.Conv2d(3, 6, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*body, torch.nn.Linear(6, 1000, bias=False))


@pytest.mark.parametrize("head", ["auto", "3"])
def test_a_callables_head_is_replaced_where_it_is_asked_for(head: str) -> None:
    made = chosen(model=make_net, head=head)
    assert count_outputs(made[3]) == 10 and made[3].bias is None
    plan = ll.plan(BOTH, model=make_net, head=head, max_steps=1)
    assert {group.name: group.elements for group in plan.groups} == {"backbone": 168, "head": 60}


def test_a_plan_of_a_model_by_name_needs_no_weights() -> None:
    plan = ll.plan(BOTH, model="resnet18", max_steps=3)
    assert plan.groups[1].parameters == ("fc.weight", "fc.bias") and plan.groups[1].elements == 5130
    assert "'backbone' stands for conv1, bn1, layer1, layer2, layer3, layer4" in str(plan)


def dropouts(**options: Any) -> dict[str, float]:
    made: Any = choose_model(RunOptions(**options), DIGITS).source
    return {path: module.p for path, module in made().named_modules() if hasattr(module, "p")}


def test_dropout_by_number_and_by_pattern() -> None:
    own = dropouts(model="efficientnet_b0")
    depth = {path for path in own if "stochastic_depth" in path}
    assert own["classifier.0"] == 0.2 and len(depth) == 16
    off = dropouts(model="efficientnet_b0", dropout=0.0)
    assert off == {**own, "classifier.0": 0.0}  # stochastic depth follows a pattern alone
    for model, paths in {"efficientnet_b0": ["*", "classifier"], "mobilenet_v2": ["classifier", "*"]}.items():
        with pytest.raises(ll.SpecError, match=r"dropout: \{.* is never used: patterns before it have taken all"):
            choose_model(RunOptions(model=model, dropout=dict.fromkeys(paths, 0.5)), DIGITS).source()  # type: ignore[operator]
    still = dropouts(model="efficientnet_b0", dropout={"*stochastic_depth": 0, "classifier": 0.5})
    assert still == {path: 0.0 if path in depth else 0.5 for path in own}


def test_the_listing_measures_each_model_and_remembers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr.models import listing

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = listing.models_text(listing.list_models(["mobilenet_v2", "squeezenet*"], progress=False))
    assert "squeezenet1_1" in text and "1,235,496" in text and "classifier.1" in text and "oneflow-graph" in text
    monkeypatch.setattr(zoo, "describe", lambda name: pytest.fail(f"{name} is measured again"))
    assert [facts.name for facts in listing.list_models(["mobilenet_v2"], progress=False)] == ["mobilenet_v2"]
    (tmp_path / "layered_lr" / "models.json").write_text("[}")
    again = ZooFacts("mobilenet_v2", 1, 2, ("a",), "b")
    monkeypatch.setattr(zoo, "describe", lambda name: again)
    assert listing.list_models(["mobilenet_v2"], progress=False) == [again]
    if not zoo.list_timm_names():
        with pytest.raises(ll.BackendUnavailable, match="timm, which is not installed"):
            listing.list_models(["timm:*"], progress=False)
    with pytest.raises(ll.SpecError, match="matches none of the"):
        listing.list_models(["x*"], progress=False)
    with pytest.raises(ll.SpecError, match="Did you mean 'resnet18'"):
        listing.list_models(["resnet81"], progress=False)
