"""timm's weights by tag and by file, without a network: what goes with them, and what timm itself makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr.training.chosen_model import choose_model
from layered_lr.training.options import RunOptions

timm = pytest.importorskip("timm")

from layered_lr_torch import zoo_building, zoo_weights  # noqa: E402

FACTS = ll.load_dataset("digits").facts


def of_timm(name: str) -> tuple[Any, ...]:
    config = timm.get_pretrained_cfg(name)
    return config.tag, config.input_size[-1], tuple(config.mean), tuple(config.std)


@pytest.mark.parametrize(
    "name", ["mobilenetv3_large_100.miil_in21k_ft_in1k", "convnext_tiny.in12k_ft_in1k_384", "resnet18.a2_in1k"]
)
def test_a_tag_chooses_what_goes_with_the_weights(name: str) -> None:
    """The default tag's images were taken."""
    model, _, tag = name.partition(".")
    for called, chosen in ((f"timm:{model}", tag), (f"timm:{name}", "DEFAULT"), (f"timm:{model}", name)):
        assert tuple(zoo_weights.find_transform(called, chosen)) == of_timm(name)
    assert tuple(zoo_weights.find_transform(f"timm:{model}", "DEFAULT")) == of_timm(model)
    with pytest.raises(ll.SpecError, match="chooses the weights"):
        zoo_weights.find_transform(f"timm:{name}", next(tag for tag in tags(model) if f"{model}.{tag}" != name))


def tags(model: str) -> list[str]:
    return [each.partition(".")[2] for each in timm.list_pretrained(model)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet18.nope", "has no weights 'nope' of that model"),
        ("timm:", "Give a name behind it, such as 'timm:resnet18'"),
        ("timm:resnet81", "Did you mean 'timm:resnet18'"),
    ],
)
def test_a_name_that_timm_does_not_have_is_refused(name: str, words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        zoo_building.check_name(name)
    with pytest.raises(ll.SpecError, match=words):
        ll.plan(ll.Spec(ll.SGD(0.1)), model=name, max_steps=1)


def test_of_your_own_file_nobody_knows_the_images(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18", num_classes=10).state_dict(), tmp_path / "mine.pth")
    own = choose_model(RunOptions(model="timm:resnet18", pretrained=tmp_path / "mine.pth"), FACTS)
    assert own.image_size is None and own.normalisation is None
    tagged = choose_model(RunOptions(model="timm:resnet18.a1_in1k", pretrained=tmp_path / "mine.pth"), FACTS)
    assert tagged.image_size == 224
    named = Path(timm.get_pretrained_cfg("resnet18.a1_in1k").url).name
    known = zoo_weights.find_file_transform("timm:resnet18", named)
    assert known is not None and known.name == "a1_in1k"


@pytest.mark.parametrize(
    ("name", "size", "heads"),
    [
        ("vit_tiny_patch16_224", 32, ("head",)),
        ("deit_tiny_distilled_patch16_224", 48, ("head", "head_dist")),
        ("swin_tiny_patch4_window7_224", 56, ("head.fc",)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm, about itself
def test_what_depends_on_the_size_is_fitted_as_timm_does(
    name: str, size: int, heads: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    given = timm.create_model(name, num_classes=1000).state_dict()
    torch.save(given, tmp_path / "w.pth")
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("backbone", optional=True), ll.Group("head")])
    options: dict[str, Any] = {"model": f"timm:{name}", "pretrained": tmp_path / "w.pth", "image_size": size}
    source: Any = choose_model(RunOptions(**options), FACTS).source
    made = source()
    wanted = timm.create_model(name, num_classes=10, img_size=size)
    fitted = sys.modules[type(wanted).__module__].checkpoint_filter_fn(dict(given), wanted)
    new = {f"{head}.{leaf}" for head in heads for leaf in ("weight", "bias")}
    assert set(source.new) == new
    for each, tensor in made.state_dict().items():
        assert each in new or torch.equal(tensor, fitted[each]), each
    plan = ll.plan(spec, max_steps=1, **options)
    assert new <= set(plan.groups[-1].parameters)
