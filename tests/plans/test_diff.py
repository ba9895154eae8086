"""What two plans do otherwise: planted changes are found, and nothing else."""

from typing import Any

import numpy as np
import pytest

import layered_lr as ll

NAMES = [("stem.weight", (4, 3)), ("body.weight", (4, 4)), ("head.weight", (2, 4))]


def made(*groups: ll.Group, names: Any = NAMES, total: int | None = 100, **settings: Any) -> ll.Plan:
    optimizer = ll.SGD(0.1, **settings)
    return ll.resolve(
        ll.Spec(optimizer, groups or [ll.Group("stem"), ll.Group("body")], ll.StepLR(10)), names, total, 10
    )


def test_equal_plans_do_not_differ() -> None:
    found = made().diff(made())
    assert not found and found == ll.PlanDiff() and str(found) == "the plans are the same"
    assert not made(total=None).diff(made(total=None))


def test_groups_added_and_gone_and_parameters_moved() -> None:
    found = made().diff(made(ll.Group("stem"), ll.Group(["body", "head"], name="rear")))
    assert found.added == ("rear",) and found.gone == ("body", "rest") and not found.changes and not found.rates
    assert found.moved == (("body.weight", "body", "rear"), ("head.weight", "rest", "rear"))
    text = str(found)
    assert "'rear' added" in text and "'rest' gone" in text and "body.weight: body -> rear" in text


def test_parameters_that_only_one_plan_has() -> None:
    found = made().diff(made(names=[*NAMES[:2], ("head.weight", (9, 4)), ("head.bias", (2,))]))
    assert found.moved == (("head.bias", None, "rest"),)
    assert [(c.what, c.before, c.after) for c in found.changes] == [("shape of head.weight", (2, 4), (9, 4))]


@pytest.mark.parametrize(
    ("group", "what", "before", "after"),
    [
        (ll.Group("body", lr=0.3), "lr", 0.1, 0.3),
        (ll.Group("body", lr_scale=0.5), "lr_scale", 1.0, 0.5),
        (ll.Group("body", schedule=ll.StepLR(50)), "schedule", ll.StepLR(10), ll.StepLR(50)),
        (ll.Group("body", weight_decay=0.01), "weight_decay", 0.0, 0.01),
    ],
    ids=repr,
)
def test_a_setting_that_differs(group: ll.Group, what: str, before: Any, after: Any) -> None:
    plan, other = made(), made(ll.Group("stem"), group)
    found = plan.diff(other)
    (change,) = found.changes
    assert found and (change.group, change.what, change.before, change.after) == ("body", what, before, after)
    assert "'body'" in str(found) and what in str(found)
    distance = np.abs(other.table() - plan.table())
    if what == "weight_decay":
        assert not found.rates
        return
    (rate,) = found.rates
    assert rate.group == "body" and rate.first_step == np.flatnonzero(distance[:, 1])[0]
    assert rate.steps == (distance[:, 1] > 0).sum() and rate.largest == distance.max()
    assert rate.largest_step == distance[:, 1].argmax() and rate.after == other.lr(rate.largest_step)["body"]


def test_one_rate_in_a_million_is_found() -> None:
    values = np.full(10**6, 0.1)
    other = values.copy()
    other[[777_777, 900_000]] = np.nextafter(0.1, 1), 0.2
    plans = [ll.resolve(ll.Spec(ll.SGD(0.1), schedule=ll.Table(table)), NAMES, 10**6) for table in (values, other)]
    (rate,) = plans[0].diff(plans[1]).rates
    assert (rate.first_step, rate.steps, rate.largest_step, rate.after) == (777_777, 2, 900_000, 0.2)


def test_lengths_and_order() -> None:
    found = made().diff(made(ll.Group("body"), ll.Group("stem"), total=60))
    assert [change.what for change in found.changes] == ["total_steps", "order of the groups"] and not found.rates
    assert "100 -> 60" in str(found)


def test_another_optimizers_settings() -> None:
    found = made().diff(made(momentum=0.9))
    assert {(change.group, change.what) for change in found.changes} == {
        (name, "momentum") for name in ("stem", "body", "rest")
    }


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(ll.SpecError, match=r"diff.*str"):
        made().diff("plan")  # type: ignore[arg-type]


def test_rates_at_some_steps() -> None:
    plan = made()
    assert np.array_equal(plan.at([5, 99, 5]), plan.table()[[5, 99, 5]]) and plan.at([]).shape == (0, 3)
    for wrong in ([-1], [0.5], 3, ["a"], [[1]], [True]):
        with pytest.raises(ll.SpecError, match="steps"):
            plan.at(wrong)


def test_decay_rules_and_clipping_are_differences() -> None:
    parameters = [("a.weight", (2, 2)), ("a.bias", (2,))]
    plain = ll.resolve(ll.Spec(ll.AdamW()), parameters, 3)
    other = ll.resolve(ll.Spec(ll.AdamW(betas=(0.8, 0.9)), no_weight_decay="1d", clip_grad_norm=1), parameters, 3)
    assert str(plain.diff(other)).splitlines() == [
        "no_weight_decay () -> ('1d',)",
        "clip_grad_norm None -> 1.0",
        "group 'rest': without weight decay 0 -> 1",
        "group 'rest': betas (0.9, 0.999) -> (0.8, 0.9)",
    ]
    assert not other.diff(other)
