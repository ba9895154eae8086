"""Rules choose by what parameters are, join as Python's operators say, and go through TOML."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from layered_lr.models.catalogue import list_parameters
from layered_lr.models.nn_modules import parameters_of
from layered_lr.models.where import where_from_table
from tests.support.isolation import value_of

NET = [
    ("embed.weight", (9, 4), (), "float32", True, ("Embedding",)),
    ("blocks.0.attn.weight", (4, 4), (), "float32", True, ("Linear",)),
    ("blocks.0.attn.in_proj_bias", (12,), (), "float32", True, ("Linear",)),
    ("blocks.0.norm.weight", (4,), (), "float32", True, ("LayerNorm2d", "LayerNorm")),
    ("blocks.0.norm.bias", (4,), (), "float32", True, ("LayerNorm2d", "LayerNorm")),
    ("blocks.1.conv.weight", (8, 3, 3, 3), (), "float32", True, ("Conv2d", "_ConvNd")),
    ("head.weight", (2, 4), (), "float32", True, ("Linear",)),
    ("head.bias", (2,), (), "float32", True, ("Linear",)),
]


def chosen(rule: Any, parameters: Any = NET) -> list[str]:
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(rule, name="chosen")]), parameters)
    return list(plan.groups[0].parameters)


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (ll.where(type="LayerNorm"), "blocks.0.norm.weight blocks.0.norm.bias"),
        (ll.where(type=["Embedding", "Conv2d"]), "embed.weight blocks.1.conv.weight"),
        (ll.where(ndim=2), "embed.weight blocks.0.attn.weight head.weight"),
        (ll.where(ndim=2) & ~ll.where("embed*"), "blocks.0.attn.weight head.weight"),
        (ll.where(ndim=2) & ~(ll.where("embed") | "head"), "blocks.0.attn.weight"),
        ("head" | ll.where(ndim=4), "blocks.1.conv.weight head.weight head.bias"),
        (ll.where(shape=(-1, 3, 3, 3)), "blocks.1.conv.weight"),
        (ll.where(bias=True), "blocks.0.attn.in_proj_bias blocks.0.norm.bias head.bias"),
        (ll.where(bias=True, norm=False), "blocks.0.attn.in_proj_bias head.bias"),
        (ll.where(norm=True), "blocks.0.norm.weight blocks.0.norm.bias"),
        (ll.where(depth=0), "embed.weight"),
        (ll.where(depth=(2, 3)), "blocks.1.conv.weight head.weight head.bias"),
        (ll.where("blocks.*", "head", ndim=[2, 4]), "blocks.0.attn.weight blocks.1.conv.weight head.weight"),
        ([ll.where(ndim=4), "head.bias"], "blocks.1.conv.weight head.bias"),
    ],
)
def test_a_rule_chooses_and_goes_through_toml(rule: Any, names: str) -> None:
    assert chosen(rule) == names.split()
    spec = ll.Spec(ll.SGD(0.1), [ll.Group(rule, name="chosen")])
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    plan = ll.resolve(spec, NET)
    again = ll.plan_from_dict(plan.to_dict())
    assert again == plan and again.groups[0].parameters == plan.groups[0].parameters
    if not isinstance(rule, list):
        assert eval(repr(rule), {"where": ll.where}) == rule


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ({"ndim": 2, "not": "embed*"}, ll.where(ndim=2) & ~ll.where("embed*")),
        ({"any": [{"norm": True}, {"bias": True}, "head"]}, ll.where(norm=True) | ll.where(bias=True) | "head"),
        ({"not": {"type": ["Linear", "Conv2d"]}}, ~ll.where(type=["Linear", "Conv2d"])),
        ({"bias": False}, ~ll.where(bias=True)),
        ({"pattern": ["a", "b"], "depth": [0, 3]}, ll.where("a", "b", depth=(0, 3))),
        ({"all": [{"shape": [-1, 3]}, {"depth": 2}]}, ll.where(shape=(-1, 3)) & ll.where(depth=2)),
    ],
)
def test_a_table_is_a_rule(table: Any, rule: ll.Where) -> None:
    assert where_from_table(table) == rule
    assert ll.Group(table).match == rule


def test_a_rule_names_its_group() -> None:
    assert ll.Group(ll.where(ndim=2) & ~(ll.where("embed*") | ll.where(norm=True))).label == (
        "ndim 2 and not (embed* or norm)"
    )
    assert ll.Group([ll.where(shape=(-1, 3), depth=(0, 2)), "head"]).label == "shape * x 3 and depth 0 to 2, head"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ll.where(), r"where\(\): needs at least one pattern"),
        (lambda: ll.where(ndim=-1), r"where\(ndim=-1\): must be a whole number of dimensions"),
        (lambda: ll.where(ndim=True), r"where\(ndim=True\): must be"),
        (lambda: ll.where(shape=3), r"where\(shape=3\): must be a list of lengths"),
        (lambda: ll.where(depth=(3, 1)), "the first depth is beyond the last"),
        (lambda: ll.where(depth=(1, 2, 3)), r"where\(depth=\(1, 2, 3\)\): must be"),
        (lambda: ll.where(bias=1), r"where\(bias=1\): must be true or false"),
        (lambda: ll.where(type=[]), r"where\(type=\[\]\): must be the name"),
        (lambda: ll.where("re:("), "not a valid regular expression"),
        (lambda: ll.where(ndim=2) & 3, "3 stands beside a where"),
        (lambda: ll.Group({"ndims": 2}), "match has no 'ndims'. Did you mean 'ndim'"),
        (lambda: ll.Group({"any": []}), r"any = \[\]: must be a list"),
        (lambda: ll.Group({}), r"match=\{\}: must be a pattern, or a table"),
    ],
)
def test_a_wrong_rule_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        make()


def test_a_rule_that_takes_nothing_is_refused() -> None:
    with pytest.raises(ll.SpecError, match=r"match where\(ndim=3\)\) matches none of the 8 parameters"):
        chosen(ll.where(ndim=3))
    with pytest.raises(ll.SpecError, match="Did you mean 'embed'"):
        chosen(ll.where("embbed", ndim=2))
    with pytest.raises(ll.SpecError, match="optional=True"):
        chosen(ll.where(type="BatchNorm2d"))


@pytest.mark.parametrize("rule", [ll.where(type="Linear"), ~ll.where(norm=True)])
def test_types_that_are_not_known_are_no_guess(rule: ll.Where) -> None:
    with pytest.raises(ll.SpecError, match="only names and shapes are known here"):
        chosen(rule, [parameter[:2] for parameter in NET])


def test_both_frameworks_and_the_catalogue_give_the_same_types(framework: Any) -> None:
    known = list_parameters("mobilenet_v2", 10)
    from layered_lr.backend.loading import load_backend

    model = load_backend(f"{framework.__name__}-eager", "cpu").build("mobilenet_v2", 10, 0.0, 0)
    assert [(p.name, p.types) for p, _ in parameters_of(model)] == [(p.name, p.types) for p in known]


def test_a_class_that_is_derived_from_another_is_of_both_types(torch: Any) -> None:
    class Norm(torch.nn.LayerNorm):  # type: ignore[misc]
        pass

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), Norm(4))
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(ll.where(type="LayerNorm"), name="norms")]), model)
    assert plan.groups[0].parameters == ("1.weight", "1.bias")


def test_words_stand_for_paths_inside_rules_too() -> None:
    net = [("conv1.weight", (8, 3, 3, 3)), ("bn1.bias", (8,)), ("fc.weight", (2, 8)), ("fc.bias", (2,))]
    assert chosen(~ll.where("head") & ~ll.where(ndim=1), net) == ["conv1.weight"]
    assert chosen(ll.where("backbone", bias=True), net) == ["bn1.bias"]
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("head")], layer_decay=0.5), net)
    assert [group.parameters for group in plan.groups] == [("fc.weight", "fc.bias"), ("conv1.weight", "bn1.bias")]
    assert "'head' stands for fc" in plan.notes


def types_of_both() -> list[list[tuple[str, ...]]]:
    """Of a torch model and of its translation, in a process of its own."""
    import torch

    import layered_lr as ll
    from layered_lr.models.nn_modules import parameters_of

    class Norm(torch.nn.LayerNorm):  # type: ignore[misc]
        pass

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4), Norm(4), torch.nn.Linear(4, 3))
    return [[p.types for p, _ in parameters_of(each)] for each in (model, ll.translate(model, torch.zeros(2, 3, 2, 2)))]


@pytest.mark.slow
@pytest.mark.usefixtures("torch", "oneflow")
def test_a_translated_model_has_torchs_types() -> None:
    ours, theirs = value_of(types_of_both)
    assert ours == theirs == [["Linear"]] * 2 + [["Norm", "LayerNorm"]] * 2 + [["Linear"]] * 2
