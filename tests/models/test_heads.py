"""The words head and backbone in a spec, by names and shapes alone."""

from __future__ import annotations

import pytest

import layered_lr as ll
from layered_lr.models.answering_layer import find_head
from layered_lr.models.heads import check_words, find_word
from layered_lr.models.parameter import Parameter

RESNET = [
    ("conv1.weight", (8, 3, 7, 7)),
    ("bn1.weight", (8,)),
    ("layer1.0.conv1.weight", (8, 8, 3, 3)),
    ("fc.weight", (10, 8)),
    ("fc.bias", (10,)),
]
SPEC = ll.Spec(ll.SGD(0.1), [ll.Group("backbone", lr_scale=0.1), ll.Group("head")])


def test_the_words_take_every_parameter_and_the_plan_shows_which() -> None:
    plan = ll.resolve(SPEC, RESNET)
    names = {group.name: group.parameters for group in plan.groups}
    assert names == {
        "backbone": ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
        "head": ("fc.weight", "fc.bias"),
    }
    assert "note: 'head' stands for fc" in str(plan)
    assert "note: 'backbone' stands for conv1, bn1, layer1" in str(plan)
    assert ll.plan_from_dict(plan.to_dict()) == plan


def test_a_module_of_that_name_is_what_the_word_means() -> None:
    own = [("backbone.0.weight", (8, 3, 3, 3)), ("head.norm.weight", (8,)), ("head.fc.weight", (10, 8))]
    plan = ll.resolve(SPEC, own)
    assert plan.groups[1].parameters == ("head.norm.weight", "head.fc.weight")
    assert not any("stands for" in note for note in plan.notes)
    mixed = [("stem.weight", (8, 3, 3, 3)), *own[1:]]  # what is no head is the backbone
    assert ll.resolve(SPEC, mixed).groups[0].parameters == ("stem.weight",)


@pytest.mark.parametrize(
    ("names", "head", "backbone"),
    [
        (
            ["features.0.weight", "classifier.0.weight", "classifier.3.weight"],
            "classifier.3",
            ("features", "classifier.0"),
        ),
        (["token", "encoder.a.weight", "heads.head.weight"], "heads.head", ("token", "encoder")),
        (["a.b.c.weight", "a.b.d.weight"], "a.b.d", ("a.b.c",)),
    ],
)
def test_the_backbone_is_all_that_is_not_the_head(names: list[str], head: str, backbone: tuple[str, ...]) -> None:
    model = [Parameter(name, (4, 4)) for name in names]
    assert find_head(model) == head and find_word("backbone", model) == backbone


def test_a_convolution_of_one_pixel_may_be_the_head() -> None:
    model = [Parameter("features.0.weight", (8, 3, 3, 3)), Parameter("classifier.1.weight", (10, 8, 1, 1))]
    assert find_head(model) == "classifier.1"


@pytest.mark.parametrize("shape", [(8,), (8, 3, 3, 3)])
def test_without_a_linear_layer_a_word_is_a_pattern_that_matches_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(ll.SpecError, match=r"group 'head' .* matches none of the 1 parameters"):
        ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("head")]), [("a.weight", shape)])


def test_words_in_phases_and_decay() -> None:
    spec = ll.Spec(
        ll.SGD(0.1, weight_decay=0.1),
        [ll.Group("conv1")],
        phases=[ll.Phase(until="2 steps", trained=["head"]), ll.Phase()],
        no_weight_decay=["head"],
    )
    plan = ll.resolve(spec, RESNET, total_steps=4)
    assert plan.plan_at(0).frozen == {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"}
    assert plan.groups[-1].undecayed == ("fc.weight", "fc.bias")


TWO_HEADS = [Parameter(name, (4, 4)) for name in ("conv.weight", "fc.weight", "aux.weight")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("head", "head='fc': the word 'head' stands for 'aux'. Write 'fc' in its place."),
        ("backbone", "stands for all but 'aux' (conv, fc). Write 'conv', 'aux' in its place."),
    ],
)
def test_a_word_that_stands_for_another_layer_than_the_given_head_is_refused(word: str, message: str) -> None:
    with pytest.raises(ll.SpecError) as refused:
        check_words(["conv*", word], TWO_HEADS, "fc")
    assert message in str(refused.value)


@pytest.mark.parametrize("head", [None, "auto", "aux"])
def test_words_stand_for_the_given_head(head: str | None) -> None:
    check_words(["head", "backbone", "fc"], TWO_HEADS, head)
    check_words(["backbone"], [Parameter(name, (4, 4)) for name in ("fc.weight", "head.fc.weight")], "head.fc")


def test_a_path_behind_a_word_is_no_path() -> None:
    """Another layer's weight was named."""
    with pytest.raises(ll.SpecError, match=r"Did you mean 'head'\?"):
        ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("head.weight")]), RESNET)


def test_a_weight_of_the_model_itself_that_answers_is_no_layer() -> None:
    model = [Parameter("embed.weight", (8, 8)), Parameter("classes", (5, 8), answers=True)]
    for word in ("head", "backbone"):
        with pytest.raises(ll.SpecError, match=f"the word '{word}': classes of the model itself makes the answer"):
            find_word(word, model)


def test_several_layers_that_answer() -> None:
    model = [
        Parameter("conv.weight", (8, 3, 3, 3)),
        Parameter("fc.weight", (10, 8), answers=True),
        Parameter("fc2.weight", (10, 8), answers=True),
        Parameter("gate.weight", (8, 8)),
    ]
    assert find_word("head", model) == ("fc", "fc2") and find_word("backbone", model) == ("conv", "gate")
    named = [each._replace(name=each.name.replace("fc.", "head.")) for each in model]
    assert find_word("head", named) == ("head", "fc2") and find_word("backbone", named) == ("conv", "gate")
    odd = [*model[:2], Parameter("gate.weight", (8, 8), answers=True)]
    with pytest.raises(ll.SpecError, match="several layers make the answer: fc, gate"):
        find_word("head", odd)
