"""A plan warns of what is seldom meant, in its text, its page and its table; and of nothing where all is well."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll

PARAMETERS = [
    ("body.conv.weight", (4, 3, 3, 3)),
    ("body.bn.weight", (4,)),
    ("body.bn.bias", (4,)),
    ("head.weight", (2, 4)),
    ("head.bias", (2,)),
]
BODY, HEAD = ll.Group("body"), ll.Group("head")


def warned(spec: ll.Spec, steps: int | None = 40, parameters: Any = PARAMETERS) -> tuple[str, ...]:
    return ll.resolve(spec, parameters, steps, 10).warnings


def spec(schedule: ll.Schedule | None = None, **more: Any) -> ll.Spec:
    return ll.Spec(ll.SGD(0.1), [BODY, HEAD], schedule, **more)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0)]), "its lr_scale is 0"),
        (ll.Spec(ll.SGD(0.1), [ll.Group("body", lr=0.0)]), "its lr is 0"),
        (ll.Spec(ll.SGD(0.1), [ll.Group("body", schedule=ll.Table([0.0] * 40))]), "its rate is 0 at every step"),
        (spec(phases=[ll.Phase(frozen="body")]), "frozen in every phase"),
        (spec(phases=[ll.Phase("10 steps", trained="head"), ll.Phase(frozen="body")]), "frozen in every phase"),
    ],
)
def test_a_group_that_never_moves(given: ll.Spec, why: str) -> None:
    (warning,) = warned(given)
    assert warning.startswith("group 'body' never moves") and why in warning


def test_a_group_that_is_frozen_by_hand() -> None:
    frozen = [ll.Parameter(name, shape, requires_grad=not name.startswith("body")) for name, shape in PARAMETERS]
    (warning,) = warned(ll.Spec(ll.SGD(0.1, weight_decay=0.1), [BODY, HEAD]), 40, frozen)
    assert "'body' never moves" in warning and "requires_grad=False" in warning


def test_a_group_that_moves_in_some_phase_is_well() -> None:
    phases = [ll.Phase("10 steps", trained="head", optimizer=ll.Adam(1e-3)), ll.Phase()]
    assert warned(spec(ll.CosineDecay(), phases=phases)) == ()


def test_a_rate_a_thousand_times_anothers() -> None:
    (warning,) = warned(ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=1e-3), HEAD]))
    assert "'body'" in warning and "1,000 times below group 'head'" in warning
    assert warned(ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=2e-3), HEAD])) == ()
    other = ll.Spec(ll.SGD(1.0), [ll.Group("body", optimizer=ll.Adam(1e-4)), HEAD])  # rates of two kinds
    assert warned(other) == ()
    layers = [(f"layers.{number}.weight", (2, 2)) for number in range(30)]
    assert warned(ll.Spec(ll.SGD(0.1), layer_decay=0.5), 40, layers) == ()  # is how it is meant


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        (ll.CosineAnnealingLR(20), "rises again"),
        (ll.CosineAnnealingLR(2, unit="epoch"), "rises again"),
        (ll.CosineDecay(20), "stays at 0"),
        (ll.CosineDecay(20, min_lr=0.01), "stays at its lowest"),
        (ll.OneCycleLR(0.1, total_steps=20, cycle_momentum=False), "stays at its lowest"),
        (ll.PolynomialLR(20), "stays at 0"),
        (ll.LinearLR(1.0, 0.0, 20), "stays at 0"),
        (ll.WSD(5, 5, total_steps=20), "stays at 0"),
        (ll.Warmup(10, ll.CosineAnnealingLR(10)), "rises again"),
        (ll.SequentialLR([ll.ConstantLR(0.5, 5), ll.PolynomialLR(10)], [5]), "stays at 0"),
        (ll.ChainedScheduler([ll.StepLR(5), ll.PolynomialLR(10)]), "stays at 0"),
    ],
)
def test_a_schedule_that_ends_before_the_run(schedule: ll.Schedule, why: str) -> None:
    (warning,) = warned(spec(schedule))
    assert warning.startswith("groups 'body', 'head'") and "before the run does" in warning and why in warning


@pytest.mark.parametrize(
    "schedule",
    [
        ll.CosineAnnealingLR(100),
        ll.CosineAnnealingLR(10, unit="epoch"),
        ll.CosineDecay(100),
        ll.OneCycleLR(0.1, total_steps=100, cycle_momentum=False),
        ll.PolynomialLR(100),
        ll.LinearLR(total_iters=100),
        ll.StepLR(30, unit="epoch"),
        ll.StepLR(40),
        ll.MultiStepLR([20, 60]),
        ll.CosineAnnealingWarmRestarts(60),
        ll.Table([0.1] * 60),
        ll.Warmup(60),
        ll.Warmup(10, ll.CosineAnnealingLR(40)),
        ll.WSD(5, 5, total_steps=100),
        ll.InverseSqrt(60),
    ],
)
def test_a_schedule_that_goes_beyond_the_run(schedule: ll.Schedule) -> None:
    (warning,) = warned(spec(schedule))
    assert "beyond the run" in warning


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        ll.CosineAnnealingLR(40),
        ll.CosineAnnealingLR(39),
        ll.CosineAnnealingLR(4, unit="epoch"),
        ll.CosineAnnealingLR(3, unit="epoch"),
        ll.CosineDecay(warmup_steps=5),
        ll.OneCycleLR(0.1, cycle_momentum=False),
        ll.StepLR(3, unit="epoch"),
        ll.MultiStepLR([10, 39]),
        ll.ExponentialLR(0.9),
        ll.LinearLR(total_iters=5),
        ll.ConstantLR(total_iters=5),
        ll.Warmup(5),
        ll.Warmup(10, ll.CosineAnnealingLR(30)),
        ll.Table([0.1] * 40),
        ll.CosineAnnealingWarmRestarts(10),
        ll.ReduceLROnPlateau(),
        ll.LambdaLR(lambda step: 0.5),
        ll.InverseSqrt(5),
        ll.CyclicLR(0.01, 0.1, 5, cycle_momentum=False),
    ],
)
def test_a_schedule_that_fits_is_well(schedule: ll.Schedule | None) -> None:
    assert warned(spec(schedule)) == ()


def test_schedules_of_phases() -> None:
    fits = [ll.Phase("20 steps", schedule=ll.CosineAnnealingLR(20)), ll.Phase(counts_from="phase")]
    assert warned(spec(ll.CosineDecay(), phases=fits)) == ()
    short = [ll.Phase("20 steps"), ll.Phase(schedule=ll.CosineAnnealingLR(10), counts_from="phase")]
    (warning,) = warned(spec(phases=short))
    assert "rises again" in warning and "20 steps" in warning


def test_decay_on_normalisations() -> None:
    (warning,) = warned(ll.Spec(ll.AdamW(1e-3, weight_decay=0.05), [BODY, HEAD]))
    assert "2 parameters of normalisations" in warning and "body.bn.weight" in warning
    assert warned(ll.Spec(ll.AdamW(1e-3, weight_decay=0.05), [BODY, HEAD], no_weight_decay="1d")) == ()
    assert warned(ll.Spec(ll.SGD(0.1, weight_decay=0.1), [ll.Group("body", weight_decay=0.0)])) == ()
    frozen = ll.Spec(ll.SGD(0.1, weight_decay=0.1), [BODY, HEAD], phases=[ll.Phase(frozen=["body.bn"])])
    assert not any("normalisations" in warning for warning in warned(frozen))


def test_of_a_length_that_is_unknown() -> None:
    assert warned(ll.Spec(ll.SGD(0.1), [BODY], ll.Table([0.1, 0.2])), None) == ()
    assert "lr_scale" in warned(ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0)], ll.Table([0.1])), None)[0]


def test_they_are_in_text_page_and_table() -> None:
    plan = ll.resolve(spec(ll.CosineAnnealingLR(20)), PARAMETERS, 40, 10)
    (warning,) = plan.warnings
    assert f"warning: {warning}" in str(plan)
    assert plan.to_dict()["warnings"] == [warning]
    assert ll.plan_from_dict(plan.to_dict()) == plan
    pytest.importorskip("matplotlib")
    from layered_lr.plans.export import html_text

    assert "warning: " in html_text(plan) and "rises again" in html_text(plan)


@pytest.mark.parametrize("name", ll.ready_recipes())
def test_the_ready_recipes_are_well(name: str) -> None:
    recipe = ll.load_recipe(name)
    known = ("model", "epochs", "max_steps", "batch_size", "accumulate_steps")
    said = {key: value for key, value in recipe.run.items() if key in known}
    assert ll.plan(recipe.spec, **said).warnings == ()
