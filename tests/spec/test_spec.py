"""The spec: what it refuses, that it never changes, and that TOML loses nothing."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr as ll

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=75)

rates = st.floats(0, 1e300) | st.integers(0, 10**6)
schedules = st.one_of(
    st.none(),
    st.builds(ll.Constant, unit=st.sampled_from(["step", "epoch"])),
    st.builds(ll.StepLR, st.integers(1, 10**12), rates, unit=st.sampled_from(["step", "epoch"])),
)
texts = st.text(min_size=1, max_size=12).filter(str.strip)
names = texts.filter(str.isprintable)
patterns = names.filter(lambda text: not text.startswith("re:")) | st.sampled_from(
    ["re:a.*b", "re:\\d+", 're:"é"', "*"]
)
optimizers = st.builds(ll.SGD, rates, momentum=st.floats(0.1, 2), weight_decay=rates, nesterov=st.booleans())
groups = st.builds(
    ll.Group,
    patterns | st.lists(patterns, min_size=1, max_size=3),
    lr=st.none() | rates,
    lr_scale=rates,
    schedule=schedules,
    weight_decay=st.none() | rates,
    name=st.none() | names,
    optional=st.booleans(),
    momentum=st.none() | st.floats(0.1, 2),
    nesterov=st.none() | st.booleans(),
)
specs = st.builds(ll.Spec, optimizers, st.lists(groups, max_size=4, unique_by=lambda group: group.label), schedules)


def example() -> ll.Spec:
    return ll.Spec(
        optimizer=ll.SGD(lr=0.1, momentum=0.9),
        groups=[ll.Group(["stem", "re:layer[12].*"], lr_scale=0.1, name="début"), ll.Group("head", lr=1e-5)],
        schedule=ll.StepLR(step_size=30, unit="epoch"),
    )


@FIXED
@given(spec=specs)
def test_toml_loses_nothing(spec: ll.Spec) -> None:
    again = ll.Spec.from_toml(spec.to_toml())
    assert again == spec and hash(again) == hash(spec) and again.to_toml() == spec.to_toml()
    assert repr(again) == repr(spec) or "-0.0" in repr(spec)


@FIXED
@given(spec=specs)
def test_a_dict_a_pickle_and_a_copy_are_equal(spec: ll.Spec) -> None:
    for again in (
        ll.Spec.from_dict(spec.to_dict()),
        pickle.loads(pickle.dumps(spec)),
        copy.deepcopy(spec),
        dataclasses.replace(spec),
    ):
        assert again == spec and hash(again) == hash(spec)


@FIXED
@given(one=specs, other=specs)
def test_equality_is_of_the_values(one: ll.Spec, other: ll.Spec) -> None:
    assert (one == other) == (one.to_toml() == other.to_toml())


def test_toml_is_read_from_a_text_a_path_and_a_path_as_a_string(tmp_path: Path) -> None:
    file = tmp_path / "my recipe é.toml"
    file.write_text(example().to_toml() + "\n[run]\nepochs = 3\n", encoding="utf-8")
    assert (
        ll.Spec.from_toml(file)
        == ll.Spec.from_toml(str(file))
        == ll.Spec.from_toml(file.read_text("utf-8"))
        == example()
    )


def test_toml_that_a_person_writes() -> None:
    text = """
        groups = [{match = "a", schedule = {type = "StepLR", step_size = 2}}, {match = ["b", "c.*"], lr = 1}]
        schedule = {type = "Constant"}
        optimizer = {type = "SGD", lr = 1e-2}
    """
    steps = ll.Group("a", schedule=ll.StepLR(2, gamma=0.1))
    assert ll.Spec.from_toml(text) == ll.Spec(ll.SGD(0.01), [steps, ll.Group(["b", "c.*"], lr=1.0)], ll.Constant())


def test_the_defaults_are_torchs(torch: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    group = torch.optim.SGD([parameter]).param_groups[0]
    ours = ll.SGD()
    for field in dataclasses.fields(ours):
        assert getattr(ours, field.name) == group[field.name], field.name
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([parameter]), 3)
    assert ll.StepLR(3).gamma == scheduler.gamma


@pytest.mark.parametrize("value", [example(), example().groups[0], ll.SGD(0.1), ll.StepLR(3)])
def test_nothing_can_be_changed(value: Any) -> None:
    before, names = repr(value), [field.name for field in dataclasses.fields(value)]
    for name in [*names, "unheard_of"]:
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            setattr(value, name, 1)
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            delattr(value, name)
    assert repr(value) == before


def test_lists_that_were_given_may_change_afterwards() -> None:
    match, groups_ = ["a", "b"], [ll.Group("c")]
    group, spec = ll.Group(match), ll.Spec(ll.SGD(0.1), groups_)
    match.append("x")
    groups_.clear()
    assert group.match == ("a", "b") and spec.groups == (ll.Group("c"),)
    assert len({spec, ll.Spec(ll.SGD(0.1), (ll.Group("c"),)), example(), example()}) == 2


def test_replace_checks_again() -> None:
    with pytest.raises(ll.SpecError, match="lr=-1"):
        dataclasses.replace(ll.SGD(0.1), lr=-1)


def test_numpy_scalars_are_numbers() -> None:
    group = ll.Group("a", lr=np.float64(0.25), lr_scale=np.float32(0.5), weight_decay=np.int64(2))
    assert group == ll.Group("a", lr=0.25, lr_scale=0.5, weight_decay=2.0)
    assert [type(value) for value in (group.lr, group.lr_scale, group.weight_decay)] == [float] * 3
    assert type(ll.StepLR(np.int32(4)).step_size) is int and ll.StepLR(np.int32(4)) == ll.StepLR(4)
    assert ll.SGD(1) == ll.SGD(1.0) == ll.SGD(np.array(1.0))


NO_RATE = [float("nan"), float("inf"), -float("inf"), -1e-300, -1, True, False, np.True_, "0.1", b"1", 1j, [0.1], {}]
NO_RATE += [np.float32("nan"), np.array([0.1, 0.2]), 10**400]
NO_COUNT = [0, -1, 1.0, 1.5, True, "3", None, float("nan"), np.float64(2), [1], -(10**30)]


@pytest.mark.parametrize("value", NO_RATE, ids=lambda value: repr(value)[:20])
def test_no_field_takes_a_bad_number(value: Any) -> None:
    fields: list[tuple[Any, dict[str, Any], str]] = [
        *((ll.SGD, {}, name) for name in ("lr", "momentum", "weight_decay")),
        *((ll.Group, {"match": "a"}, name) for name in ("lr", "lr_scale", "weight_decay", "momentum")),
        (ll.StepLR, {"step_size": 1}, "gamma"),
    ]
    for kind, others, name in fields:
        with pytest.raises(ll.SpecError, match=rf"^{kind.__name__}\({name}=[\s\S]*{name} must be a") as caught:
            kind(**others, **{name: value})
        assert isinstance(caught.value, ValueError) and "pydantic" not in str(caught.value)


@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_step_size_is_a_whole_number_from_one(value: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"^StepLR\(step_size=.*step_size must be a.*(whole number|>= 1)"):
        ll.StepLR(value)


def test_none_is_a_number_only_where_it_means_the_optimizers() -> None:
    assert ll.Group("a", lr=None, weight_decay=None) == ll.Group("a")
    for make in (lambda: ll.SGD(None), lambda: ll.Group("a", lr_scale=None), lambda: ll.StepLR(2, gamma=None)):
        with pytest.raises(ll.SpecError, match=r"=None.*must be a number"):
            make()  # type: ignore[no-untyped-call]
