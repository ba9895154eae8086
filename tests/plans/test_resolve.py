"""``resolve``: groups that get nothing, the group ``rest``, and parameters that are no parameters."""

import re
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

NAMES = ["features.0.0.weight", "features.0.1.weight", "features.1.0.weight", "classifier.weight", "classifier.bias"]
PARAMETERS = [(name, (3, 2)) for name in NAMES]


def resolve(*groups: ll.Group, parameters: Any = PARAMETERS, **lengths: Any) -> ll.Plan:
    return ll.resolve(ll.Spec(ll.SGD(0.5), groups), parameters, **lengths)


@pytest.mark.parametrize(
    ("match", "hint"),
    [
        ("feature", "'features'"),
        ("feature.0.*", "'features.0.*'"),
        ("features.0.0.wieght", "'features.0.0.weight'"),
        ("clasifier.bias", "'classifier.bias'"),
        ("Classifier", "'classifier'"),
        ("bias", "'classifier.bias'"),
        (["clasifier", "nothing.like.it"], "'classifier'"),
    ],
)
def test_a_name_that_is_nowhere_is_refused_with_the_nearest(match: Any, hint: str) -> None:
    with pytest.raises(
        ll.SpecError, match=f"matches none of the 5 parameters.*Did you mean.*{re.escape(hint)}"
    ) as caught:
        resolve(ll.Group("*.0.0.*"), ll.Group(match, name="mine"))
    message = str(caught.value)
    assert "group 'mine'" in message and NAMES[0] in message and "optional=True" in message and "\n" not in message


def test_the_hint_matches_something() -> None:
    for wrong in ("feature", "feature.0", "features.0.0.weigth", "clasifier*"):
        with pytest.raises(ll.SpecError) as caught:
            resolve(ll.Group(wrong))
        found = re.search(r"Did you mean '([^']+)'", str(caught.value))
        assert found, wrong
        assert resolve(ll.Group(found[1])).groups[0].parameters


def test_a_name_like_no_other_gets_no_false_hint() -> None:
    with pytest.raises(ll.SpecError) as caught:
        resolve(ll.Group("zzz"))
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "match", ["features.0", "features.0.0.weight", "features.*", "re:features.*", ["features.1", "x"]]
)
def test_a_group_whose_parameters_an_earlier_one_took_is_refused_naming_that_one(match: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"'late'.*earlier groups have taken.*'backbone'.*optional=True") as caught:
        resolve(ll.Group("classifier"), ll.Group("features", name="backbone"), ll.Group(match, name="late"))
    assert "'classifier'" not in str(caught.value) and "\n" not in str(caught.value)


def test_two_earlier_groups_are_both_named() -> None:
    with pytest.raises(ll.SpecError, match="'features', 'classifier'"):
        resolve(ll.Group("features"), ll.Group("classifier"), ll.Group("*"))


def test_an_optional_group_may_get_nothing_and_stands_in_the_plan() -> None:
    plan = resolve(
        ll.Group("features", lr_scale=0.9),
        ll.Group("adaptive_avg_pool2d", lr_scale=0.8, optional=True),
        ll.Group("features.0", lr_scale=0.7, optional=True),
        total_steps=2,
    )
    assert [group.name for group in plan.groups] == ["features", "adaptive_avg_pool2d", "features.0", "rest"]
    assert [len(group.parameters) for group in plan.groups] == [3, 0, 0, 2]
    assert plan.table().tolist() == [[0.45, 0.4, 0.35, 0.5]] * 2
    assert "adaptive_avg_pool2d" in str(plan)


def test_rest_is_last_and_at_the_optimizers_rate() -> None:
    schedule = ll.StepLR(1, gamma=0.5)
    spec = ll.Spec(ll.SGD(0.5), [ll.Group("classifier", lr=2, lr_scale=3, schedule=ll.Constant())], schedule)
    plan = ll.resolve(spec, PARAMETERS)
    assert plan.groups[-1].name == "rest" and plan.groups[-1].parameters == tuple(NAMES[:3])
    assert plan.lr(3) == {"classifier": 6.0, "rest": 0.5 / 8}
    assert "rest" in str(plan)


def test_there_is_no_rest_where_all_is_taken_and_nothing_but_rest_without_groups() -> None:
    assert [group.name for group in resolve(ll.Group("features"), ll.Group("*")).groups] == ["features", "*"]
    assert [group.parameters for group in resolve().groups] == [tuple(NAMES)]
    assert resolve().groups[0].name == "rest"


def test_a_group_of_the_users_called_rest() -> None:
    assert resolve(ll.Group("features"), ll.Group("*", name="rest")).lr(0) == {"features": 0.5, "rest": 0.5}
    with pytest.raises(ll.SpecError, match=r"'rest'.*'\*'"):
        resolve(ll.Group("features", name="rest"))


def test_a_groups_own_hyperparameters_are_in_the_plan_and_the_others_inherited() -> None:
    spec = ll.Spec(ll.SGD(0.5, momentum=0.9, weight_decay=1e-4), [ll.Group("features", weight_decay=0, lr=0)])
    features, rest = ll.resolve(spec, PARAMETERS).groups
    assert features.optimizer == ll.SGD(0.0, momentum=0.9, weight_decay=0.0)
    assert rest.optimizer == ll.SGD(0.5, momentum=0.9, weight_decay=1e-4)


def test_a_name_that_stands_twice_is_refused() -> None:
    for parameters in (
        [("a", (1,)), ("b", (1,)), ("a", (2,))],
        [("a", (1,), ("b",)), ("b", (1,))],
        [("a", (1,), ("a",))],
    ):
        with pytest.raises(ll.SpecError, match=r"'[ab]'.*twice"):
            resolve(parameters=parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        None, 3, "features", [], (), {}, [3], ["weight"], [("weight",)], [("weight", 3)], [("", (1,))], [(3, (1,))],
        [(None, (1,))], [("w", (-1,))], [("w", ("a",))], [("w", (3.5,))], [("w", "33")], [("w", (float("nan"),))],
        [("w", (float("inf"),))], [("w", (1,), "abc")], [("w", (1,), (3,))], [("w", (1,), (), ())],
        complex(1), ll.SGD(),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_list_of_names_and_shapes_is_refused(parameters: Any) -> None:
    with pytest.raises(ll.SpecError, match="parameters"):
        resolve(parameters=parameters)


def test_tensors_instead_of_shapes_are_refused_in_one_line(torch: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(40, 30))
    with pytest.raises(ll.SpecError, match=r"0.weight") as caught:
        resolve(parameters=list(model.named_parameters()))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_numpy_and_torch_shapes_are_shapes(torch: Any) -> None:
    plan = resolve(parameters=[("a", np.zeros((3, 4)).shape), ("b", torch.zeros(5, 2).shape), ("c", ()), ("d", (0, 3))])
    assert plan.groups[0].elements == 12 + 10 + 1 + 0
    assert plan.parameters[1] == ll.Parameter("b", (5, 2))


@pytest.mark.parametrize("name", ["total_steps", "steps_per_epoch"])
@pytest.mark.parametrize("value", [-1, 1.0, 2.5, True, "3", float("nan"), [3], np.array([1, 2]), np.True_])
def test_lengths_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ll.SpecError, match=name):
        resolve(**{name: value})


def test_numpy_integers_are_whole_numbers() -> None:
    plan = resolve(total_steps=np.int64(7), steps_per_epoch=np.uint8(2))
    assert type(plan.total_steps) is int and plan.table().shape == (7, 1)


@pytest.mark.parametrize("spec", [None, "SGD", ll.SGD(0.1), ll.Group("a"), {}])
def test_a_spec_is_a_spec(spec: Any) -> None:
    with pytest.raises(ll.SpecError, match="Spec"):
        ll.resolve(spec, PARAMETERS)


def test_a_lazy_layer_has_no_shape_yet(torch: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"'0.weight' has no shape"):
        resolve(parameters=torch.nn.Sequential(torch.nn.LazyLinear(3)))


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (ll.CosineDecay(warmup_steps=10), "CosineDecay(warmup_steps=10) needs 10 steps, and the run has 2 for it."),
        (ll.WSD(5, 6), "WSD(warmup_steps=5, decay_steps=6) needs 11 steps, and the run has 2 for it."),
        (ll.Warmup(1, ll.CosineDecay(warmup_steps=3)), "CosineDecay(warmup_steps=3) needs 3 steps, and the run has 1"),
        (ll.SequentialLR([ll.Constant(), ll.WSD(1, 1)], [1]), "WSD(warmup_steps=1, decay_steps=1) needs 2 steps"),
        (ll.CosineDecay(warmup_steps=3, unit="epoch"), "CosineDecay(warmup_steps=3) needs 3 epochs, and the run has 1"),
    ],
)
def test_a_run_too_short_for_a_warm_up_names_what_was_written(schedule: ll.Schedule, said: str) -> None:
    """Not ``total_steps`` of the schedule, which the run's length has filled in."""
    spec = ll.Spec(ll.SGD(lr=0.1), schedule=schedule)
    with pytest.raises(ll.SpecError, match=re.escape(said)) as error:
        ll.resolve(spec, [("w", (1,))], total_steps=2, steps_per_epoch=2)
    assert "max_steps or epochs" in str(error.value) and "total_steps=" not in str(error.value)
