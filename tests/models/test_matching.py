"""Which parameter belongs to which group, through ``resolve``: paths, globs, regular expressions, wrappers."""

import fnmatch
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr as ll

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def taken(match: Any, names: list[str]) -> list[str]:
    """What one group takes of these names."""
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(match, name="it", optional=True)]), [(n, (1,)) for n in names])
    return list(plan.groups[0].parameters)


@pytest.mark.parametrize(
    ("match", "yes", "no"),
    [
        (
            "features",
            ["features.0.weight", "features"],
            ["features2.weight", "x.features.weight", "Features.0", "feature"],
        ),
        ("features.1", ["features.1.weight", "features.1.0.bias"], ["features.10.weight", "features.0.1.weight"]),
        ("features.1.weight", ["features.1.weight"], ["features.1.weight_v", "features.1.weights"]),
        ("a.b", ["a.b.c"], ["axb.c", "a.bc", "a"]),
        ("a(1)", ["a(1).w"], ["a1.w"]),
        ("w+", ["w+.x"], ["ww.x", "w"]),
        ("a|b", ["a|b.w"], ["a.w", "b.w"]),
        ("$", ["$.w"], ["w"]),
        ("^a", ["^a.w"], ["a.w"]),
        ("a\\d", ["a\\d.w"], ["a1.w"]),
        ("größe", ["größe.w"], ["grosse.w"]),
        ("層", ["層.0.w"], ["層2.w"]),
        ("features.*.weight", ["features.0.weight", "features.0.1.weight"], ["features.0.bias", "x.features.0.weight"]),
        ("*", ["a", "a.b.c", "層.w"], []),
        ("*.bias", ["a.bias", "a.b.bias"], ["bias", "a.bias2", "a.bias.x"]),
        ("*bias", ["bias", "a.bias", "unbias"], ["bias.x"]),
        ("layer?.w", ["layer1.w", "layer..w"], ["layer.w", "layer12.w", "Layer1.w"]),
        ("layer[12].w", ["layer1.w", "layer2.w"], ["layer3.w", "layer12.w"]),
        ("layer[12].w", ["layer[12].w"], ["layer1.w", "layer2.w"]),  # a name of the model is always that name
        ("layer[12]", ["layer[12].w", "layer[12].x.b"], ["layer1", "layer2.w"]),
        ("w*", ["w*.w"], ["wide.w", "w.w"]),
        ("is it?", ["is it?.w"], ["is its.w"]),
        ("re:x", ["re:x.w"], ["x"]),
        (["conv[1].w", "*.bias"], ["conv[1].w", "a.bias"], ["conv1.w"]),
        ("a._checkpoint_wrapped_module.w", ["a.w"], ["a.b.w"]),
        ("layer[!12].w", ["layer3.w"], ["layer1.w"]),
        ("a[[]0].w", ["a[0].w"], ["a0.w"]),
        ("a[.w", ["a[.w"], ["a.w"]),
        ("re:features", ["features"], ["features.0.weight", "x.features"]),
        (r"re:features\.\d+\.weight", ["features.10.weight"], ["features.x.weight", "features.1.weight.0"]),
        ("re:a|b.*", ["a", "b.c"], ["a.c", "ab"]),
        ("re:^head$", ["head"], ["head\n", "a.head"]),
        ("re:(?i)head.*", ["HEAD.w", "head.w"], ["decode_head.w"]),
        ("re:re:x", ["re:x"], ["x"]),
        (["a", "re:b.*", "*.c"], ["a.x", "bb", "z.c"], ["z", "c"]),
        (("head", "head"), ["head.w"], ["decode_head.w"]),
    ],
    ids=repr,
)
def test_what_a_pattern_takes(match: Any, yes: list[str], no: list[str]) -> None:
    names = [*no, *yes]
    assert taken(match, names) == yes


components = st.text("abAB01_*", min_size=1, max_size=3).map(lambda text: text.replace("*", "é"))
names_ = st.lists(st.lists(components, min_size=1, max_size=4).map(".".join), min_size=1, max_size=8, unique=True)


@FIXED
@given(names=names_, path=st.lists(components, min_size=1, max_size=2))
def test_a_path_takes_whole_components(names: list[str], path: list[str]) -> None:
    assert taken(".".join(path), names) == [name for name in names if name.split(".")[: len(path)] == path]


@FIXED
@given(names=names_, pattern=st.text("ab.*?[]!", min_size=1, max_size=6).filter(lambda text: set(text) & set("*?[")))
def test_a_glob_is_fnmatch_over_the_whole_name(names: list[str], pattern: str) -> None:
    assert taken(pattern, names) == [name for name in names if fnmatch.fnmatchcase(name, pattern)]


@FIXED
@given(names=names_, chosen=st.sets(st.integers(0, 7)))
def test_a_regular_expression_matches_the_whole_name(names: list[str], chosen: set[int]) -> None:
    wanted = [name for index, name in enumerate(names) if index in chosen] or names[:1]
    assert taken("re:" + "|".join(map(re.escape, wanted)), names) == wanted


@FIXED
@given(names=names_, paths=st.lists(components, min_size=1, max_size=4, unique=True))
def test_every_parameter_is_in_one_group_the_first_that_matches(names: list[str], paths: list[str]) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group(path, optional=True) for path in paths])
    plan = ll.resolve(spec, [(name, (2,)) for name in names])
    for name in names:
        owners = [group.name for group in plan.groups if name in group.parameters]
        assert owners == [name.split(".")[0] if name.split(".")[0] in paths else "rest"]
    for group in plan.groups:
        assert list(group.parameters) == [name for name in names if name in group.parameters], "in model order"


PLAIN = ["features.0.weight", "features.0.bias", "features2.weight", "head.weight"]


def wrapped(name: str, prefix: str, at: int) -> str:
    """A name with a wrapper's prefix before its component ``at``."""
    parts = name.split(".")
    return ".".join(parts[:at]) + ("." if at else "") + prefix + ".".join(parts[at:])


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("match", ["features", "features.0.weight", "features.*", r"re:features\.0\..*", "head"])
def test_a_wrapper_of_the_whole_model_keeps_no_pattern_from_matching(prefix: str, match: str) -> None:
    assert taken(match, [prefix + name for name in PLAIN]) == [prefix + name for name in taken(match, PLAIN)] != []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("match", ["features", "features.0", "features.0.*", r"re:features\.0\.weight"])
def test_a_wrapper_of_a_part_of_the_model_keeps_no_pattern_from_matching(prefix: str, match: str) -> None:
    names = [wrapped(name, prefix, 1) if name.startswith("features.") else name for name in PLAIN]
    expected = [wrapped(name, prefix, 1) for name in taken(match, PLAIN)]
    assert taken(match, names) == expected != []


def test_wrappers_at_the_start_and_in_the_middle() -> None:
    names = ["module._orig_mod.features.module.0.weight", "module._orig_mod.features2.module.0.weight"]
    assert taken("features.0.weight", names) == names[:1]
    assert taken("features2", names) == names[1:]


def test_the_wrapped_name_itself_matches_too() -> None:
    names = ["module.features.weight", "module.head.weight"]
    assert taken("module.features", names) == names[:1]
    assert taken("module", names) == names


def test_a_module_of_the_users_own_called_module_is_no_wrapper() -> None:
    names = ["module.head.weight", "head.weight"]
    assert taken("head", names) == ["head.weight"]
    assert taken("module", names) == ["module.head.weight"]
    assert taken("block", ["block.module", "block.bias"]) == ["block.module", "block.bias"]


@pytest.mark.parametrize("wrap", ["DataParallel", "compile"])
def test_torchs_own_wrappers(torch: Any, wrap: str) -> None:
    model = torch.nn.Sequential()
    model.add_module("features", torch.nn.Linear(2, 3))
    model.add_module("head", torch.nn.Linear(3, 2))
    around = torch.nn.DataParallel if wrap == "DataParallel" else torch.compile
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("features")])
    for outer in (around(model), torch.nn.DataParallel(around(model))):
        names = [name for name, _ in outer.named_parameters()]
        assert [group.parameters for group in ll.resolve(spec, outer).groups] == [tuple(names[:2]), tuple(names[2:])]
    model.features = around(model.features)
    assert [len(group.parameters) for group in ll.resolve(spec, model).groups] == [2, 2]


def test_tied_weights_are_one_parameter_of_the_first_group_that_matches_any_name() -> None:
    parameters = [("emb.weight", (5, 2), ("head.weight", "tie.w")), ("head.bias", (5,))]
    for matches, groups in (
        (["head"], {"head": ("emb.weight", "head.bias")}),
        (["emb", "head"], {"emb": ("emb.weight",), "head": ("head.bias",)}),
        (["tie.*"], {"tie.*": ("emb.weight",), "rest": ("head.bias",)}),
    ):
        plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(match) for match in matches]), parameters)
        assert {group.name: group.parameters for group in plan.groups} == groups
        assert sum(group.elements for group in plan.groups) == 15
        note = next(line for line in str(plan).splitlines() if "tied" in line)
        assert all(word in note for word in ("emb.weight", "head.weight", "tie.w", next(iter(groups))))


def test_tied_weights_of_a_torch_model(torch: Any) -> None:
    model = torch.nn.Module()
    model.emb, model.body, model.head = torch.nn.Embedding(5, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 5)
    model.head.weight = model.emb.weight
    model.again = model.head
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("again")]), torch.nn.DataParallel(model))
    assert plan.groups[0].parameters == ("module.emb.weight", "module.head.bias")
    assert [p.name for p in plan.parameters] == [name for name, _ in torch.nn.DataParallel(model).named_parameters()]
    assert "module.again.weight" in str(plan)


def test_a_name_with_glob_characters_is_taken_wherever_patterns_are() -> None:
    names = [("conv[1].weight", (2, 2)), ("conv1.weight", (2, 2)), ("head.weight", (2, 2))]
    spec = ll.Spec(
        ll.SGD(0.1, weight_decay=0.1),
        [ll.Group("conv[1].weight", name="one")],
        no_weight_decay=["conv[1].weight"],
        phases=[ll.Phase("1 step", frozen=["conv[1].weight"]), ll.Phase(trained=["conv[1]"])],
    )
    plan = ll.resolve(spec, names, total_steps=2)
    assert plan.groups[0].parameters == ("conv[1].weight",) == plan.groups[0].undecayed
    assert [sorted(there.frozen) for there in plan.phase_plans] == [
        ["conv[1].weight"],
        ["conv1.weight", "head.weight"],
    ]


def test_names_are_without_the_part_of_a_checkpoint_wrapper(torch: Any) -> None:
    """As ``state_dict()`` has them; the names that ``named_parameters()`` has still match."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = torch.nn.Sequential(checkpoint_wrapper(torch.nn.Linear(2, 2)), torch.nn.Linear(2, 2))
    for match in ("0.weight", next(name for name, _ in model.named_parameters())):
        plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group(match, name="it")]), model)
        assert plan.groups[0].parameters == ("0.weight",)
    assert [parameter.name for parameter in plan.parameters] == list(model.state_dict())
