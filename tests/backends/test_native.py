"""OneFlow's own schedulers in the Graph: where they are taken, that they meet the plan, and eager mode to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from tests.support.applied_rates import TOLERANCE, planned, through_attach
from tests.support.isolation import value_of
from tests.support.schedule_cases import EXAMPLES
from tests.support.widths import keep_some

HUGE = 10**6
TABLE = "native table"
EPOCHS: dict[str, Any] = {"unit": "epoch"}
SMOOTH: dict[str, Any] = {"unit": "epoch", "every_step": True}

NATIVE = [
    "StepLR",
    "MultiStepLR",
    "ExponentialLR",
    "ConstantLR",
    "PolynomialLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "SequentialLR",
]


def in_graph(start: int, steps: int, drawn: int) -> dict[str, object]:
    """Runs many random schedules in one graph from a step on; the largest differences to plan, eager mode and job."""
    import numpy as np
    import oneflow as flow

    import layered_lr as ll
    from layered_lr_oneflow.compiled_rates import CompiledRates
    from layered_lr_oneflow.float32_rates import Float32Rates
    from tests.support.models import ones, taken, unit_gradients

    rng = np.random.default_rng(start)
    low = 0 if start == 0 else int(start * 0.9)

    def length() -> int:
        return int(rng.integers(low + 1, low + 3 * steps))

    def gamma(top: float) -> float:
        return float(1 - 10 ** rng.uniform(-7, top))

    def floor() -> float:
        return float(rng.choice([0.0, 10 ** rng.uniform(-12, -5)]))

    def simple() -> ll.Schedule:
        milestones = sorted({length() for _ in range(rng.integers(1, 6))})
        mult, up = int(rng.integers(1, 3)), float(rng.uniform(0.01, 1))
        kinds = [
            lambda: ll.StepLR(length(), float(10 ** rng.uniform(-1, 0.1))),
            lambda: ll.MultiStepLR(milestones, float(10 ** rng.uniform(-1, 0.3))),
            lambda: ll.ExponentialLR(gamma(-5) if start else gamma(-1)),
            lambda: ll.ConstantLR(float(rng.uniform()), length()),
            lambda: ll.LinearLR(up, float(rng.choice([0.0, 1.0, rng.uniform()])), length()),
            lambda: ll.PolynomialLR(length(), float(rng.choice([0.0, 0.5, 1.0, 2.0, rng.uniform(0, 9)]))),
            lambda: ll.CosineAnnealingLR(length(), floor()),
            lambda: ll.CosineAnnealingWarmRestarts(length() if rng.integers(2) else 3, mult, floor()),
        ]
        return kinds[rng.integers(len(kinds))]()

    def any_schedule() -> ll.Schedule:
        if rng.integers(5):
            return simple()
        count = int(rng.integers(1, 4))
        return ll.SequentialLR([simple() for _ in range(count)], sorted(length() for _ in range(count - 1)))

    groups = [
        ll.Group(
            f"p{index}",
            lr=float(10 ** rng.uniform(-4, 2)),
            lr_scale=float(rng.choice([0.0, 1.0, 10 ** rng.uniform(-4, 3)])),
            schedule=any_schedule(),
        )
        for index in range(drawn)
    ]
    names = [group.match for group in groups]
    model = unit_gradients(flow, names)

    class Graph(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.plan = ll.attach(ll.Spec(ll.SGD(lr=0.1), groups), self, model, total_steps=start + steps).plan

        def build(self, x: object) -> object:
            loss = self.net(x)
            loss.backward()
            return loss

    graph = Graph()
    graph.load_state_dict({"System-Train-TrainStep": flow.tensor(np.array([start], np.int64))})
    applied = []
    for _ in range(steps):
        graph(ones(flow))
        applied.append(taken(model, flow))
    rates = np.array(applied)
    eager = Float32Rates(graph.plan)
    job = CompiledRates(graph)
    read = np.stack([job.read_rates(f"net.{name}", start, start + steps) for name in names], axis=1)
    exact = graph.plan.table(start, start + steps)
    seen = exact > 1e-35  # float32 has all its digits here
    return {
        "lowerings": sorted({how.split(",")[0] for how in graph.plan.lowering("oneflow-graph").values()}),
        "off plan": float(np.max(np.abs(rates - exact)[seen] / exact[seen])),
        "unlike eager": int(np.sum((rates != [eager.rates(step) for step in range(start, start + steps)])[seen])),
        "unlike job": int(np.sum((rates != read)[seen])),
    }


@pytest.mark.parametrize("start", keep_some([0, HUGE - 20], bool))
def test_rates_in_the_weights_are_the_plans_and_eagers_to_the_bit(oneflow: Any, start: int) -> None:
    measured = value_of(in_graph, start, 40, 100 if start == 0 else 50)
    assert measured["off plan"] < TOLERANCE
    assert measured["unlike eager"] == measured["unlike job"] == 0
    assert {f"native {name}" for name in NATIVE} <= set(measured["lowerings"])


LOWERINGS: dict[str, tuple[ll.Schedule, str]] = {
    "milestones in epochs": (ll.MultiStepLR([2, 5], **EPOCHS), "native MultiStepLR"),
    "no milestones": (ll.MultiStepLR([]), TABLE),
    "a milestone twice": (ll.MultiStepLR([2, 2]), TABLE),
    "gamma 0": (ll.MultiStepLR([2], 0.0), TABLE),
    "exponential gamma 0": (ll.ExponentialLR(0.0), TABLE),
    "exponential in epochs": (ll.ExponentialLR(0.5, **EPOCHS), "native StepLR"),
    "exponential within epochs": (ll.ExponentialLR(0.5, **SMOOTH), TABLE),
    "constant in epochs": (ll.ConstantLR(0.5, 3, **EPOCHS), "native ConstantLR"),
    "constant for ever": (ll.ConstantLR(0.5, 0), TABLE),
    "line in epochs": (ll.LinearLR(0.5, total_iters=4, **EPOCHS), TABLE),
    "line within epochs": (ll.LinearLR(0.5, total_iters=4, **SMOOTH), "native LinearLR"),
    "line of no length": (ll.LinearLR(0.5, total_iters=0), TABLE),
    "line beyond float32": (ll.LinearLR(total_iters=2**24 + 1), TABLE),
    "polynomial within epochs": (ll.PolynomialLR(9, 2.0, **SMOOTH), "native PolynomialLR"),
    "polynomial of no length": (ll.PolynomialLR(0), TABLE),
    "cosine within epochs": (ll.CosineAnnealingLR(10, **SMOOTH), "native CosineAnnealingLR"),
    "cosine in epochs": (ll.CosineAnnealingLR(10, **EPOCHS), TABLE),
    "cosine up": (ll.CosineAnnealingLR(10, eta_min=0.2), TABLE),
    "restarts within epochs": (ll.CosineAnnealingWarmRestarts(2, **SMOOTH), "native CosineAnnealingWarmRestarts"),
    "longer restarts within epochs": (ll.CosineAnnealingWarmRestarts(2, 2, **SMOOTH), TABLE),
    "restarts by 3": (ll.CosineAnnealingWarmRestarts(1, 3), TABLE),
    "restarts up": (ll.CosineAnnealingWarmRestarts(2, eta_min=0.2), TABLE),
    "a sequence": (ll.SequentialLR([ll.Constant(), ll.ExponentialLR(0.5)], [9]), "native SequentialLR"),
    "a sequence in a sequence": (
        ll.SequentialLR([ll.SequentialLR([ll.StepLR(3)], []), ll.StepLR(4)], [9]),
        TABLE,
    ),
    "a sequence with a table": (ll.SequentialLR([ll.StepLR(3), ll.ConstantLR(0.5, 0)], [9]), TABLE),
}


@pytest.mark.parametrize("name", LOWERINGS)
def test_lowering(name: str) -> None:
    schedule, expected = LOWERINGS[name]
    plan = ll.resolve(ll.Spec(ll.SGD(lr=0.1), schedule=schedule), [("p", (1,))], total_steps=30, steps_per_epoch=3)
    how = plan.lowering("oneflow-graph")["rest"].removesuffix(", native lr_scale")
    assert how.partition(" of ")[0] == expected


def test_every_one_of_them_runs(oneflow: Any) -> None:
    """All in one graph."""
    names = [f"p{place}" for place in range(len(LOWERINGS))]
    groups = [
        ll.Group(name, lr=0.1, lr_scale=0.3, schedule=schedule)
        for name, (schedule, _) in zip(names, LOWERINGS.values(), strict=True)
    ]
    groups.append(ll.Group("still", lr=0.0))
    plan, rates = through_attach(oneflow, ll.Spec(ll.SGD(lr=0.1), groups), [*names, "still"])
    expected = planned(plan)
    for column, what in enumerate([*LOWERINGS, "still"]):
        np.testing.assert_allclose(rates[:, column], expected[:, column], rtol=TOLERANCE, atol=1e-12, err_msg=what)


def test_a_floor_below_the_rate_but_not_below_float32s_does_not_abort(oneflow: Any) -> None:
    assert float(np.float32(0.7)) < 0.7 - 1e-9
    spec = ll.Spec(ll.SGD(lr=0.7), schedule=ll.CosineAnnealingLR(5, eta_min=0.7 - 1e-9))
    plan, rates = through_attach(oneflow, spec, ["p0"])
    np.testing.assert_allclose(rates, planned(plan), rtol=TOLERANCE, atol=0)
    assert plan.lowering("oneflow-graph")["rest"].startswith(TABLE)


def test_a_rate_of_zero_stays_zero_where_the_factor_is_infinite(oneflow: Any) -> None:
    spec = ll.Spec(ll.SGD(lr=0.0), schedule=ll.ExponentialLR(1e308))
    plan, rates = through_attach(oneflow, spec, ["p0"])
    assert rates.max() == 0.0
    assert set(plan.lowering("oneflow-graph").values()) == {"constant, native lr_scale"}


def test_what_rises_out_of_a_rate_that_float32_rounds_is_exact(oneflow: Any) -> None:
    plan, rates = through_attach(oneflow, ll.Spec(ll.SGD(lr=1.2e-44), schedule=ll.ExponentialLR(1e10)), ["p0"])
    seen = planned(plan) > 1e-37
    assert seen.sum() == 8
    np.testing.assert_allclose(rates[seen], planned(plan)[seen], rtol=TOLERANCE, atol=0)


def test_native_and_table_agree_bitwise(oneflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where float32 holds lr: the kernel starts from lr as float32, a table holds what the plan makes of lr itself."""
    names = [f"{name}_{kind}" for name in EXAMPLES for kind in ("scaled", "plain")]
    groups = []
    for name, schedule in EXAMPLES.items():
        groups.append(ll.Group(f"{name}_scaled", lr=0.5, lr_scale=0.1, schedule=schedule))
        groups.append(ll.Group(f"{name}_plain", lr=0.0625, schedule=schedule))
    _, native = through_attach(oneflow, ll.Spec(ll.SGD(lr=0.1), groups), names)
    for module in ("lowering", "native_schedulers", "float32_rates"):
        monkeypatch.setattr(f"layered_lr_oneflow.{module}.find_native_schedule", lambda plan, group: None)
    _, table = through_attach(oneflow, ll.Spec(ll.SGD(lr=0.1), groups), names)
    assert [name for name, differs in zip(names, (native != table).any(axis=0), strict=True) if differs] == []


def test_a_cosine_over_a_million_steps_is_native() -> None:
    spec, parameters = ll.Spec(ll.SGD(lr=0.1), schedule=ll.CosineAnnealingLR(HUGE)), [("p", (1,))]
    plan = ll.resolve(spec, parameters, total_steps=HUGE)
    assert plan.lowering("oneflow-graph") == {"rest": "native CosineAnnealingLR, native lr_scale"}
    # It may pass any number of minima then, and next to one of them the kernel may be off.
    how = ll.resolve(spec, parameters).lowering("oneflow-graph")["rest"]
    assert how == "native table (needs total_steps), native lr_scale"


def kernel_rates(plan: Plan, group: PlanGroup, steps: Any) -> Any:
    """What OneFlow computes for a group at some steps, before ``lr_scale``; None where it is not asked to."""
    from layered_lr_oneflow.kernel_arithmetic import KernelSchedule, as_float32
    from layered_lr_oneflow.native_schedules import find_native_schedule

    schedule = find_native_schedule(plan, group)
    return None if schedule is None else KernelSchedule(schedule)(steps, as_float32(group.lr))


def test_the_kernel_meets_the_plan_in_long_runs() -> None:
    """At the beginning, next to every end, and at random; lengths up to 10**7, in steps and within epochs."""
    rng = np.random.default_rng(5)
    natives = 0
    for _ in range(600):
        length, per_epoch = int(10 ** rng.uniform(0, 7)), int(10 ** rng.uniform(0, 4))
        unit = [{}, SMOOTH][rng.integers(2)]
        in_unit = max(1, length // per_epoch) if unit else length
        length = in_unit * per_epoch if unit else in_unit
        low = float(rng.choice([0.0, 10 ** rng.uniform(-9, -2)]))
        schedules = [
            ll.LinearLR(float(rng.uniform(1e-6, 1)), float(rng.choice([0.0, 1.0, low])), in_unit, **unit),
            ll.PolynomialLR(in_unit, float(rng.choice([0.5, 1.0, rng.uniform(0, 9)])), **unit),
            ll.CosineAnnealingLR(in_unit, low, **unit),
            ll.CosineAnnealingWarmRestarts(in_unit, int(rng.integers(1, 4)), low, **unit),
        ]
        total = int(length * rng.uniform(0.5, 8)) + 1
        spec = ll.Spec(ll.SGD(lr=float(10 ** rng.uniform(-1.5, 1))), schedule=schedules[rng.integers(4)])
        plan = ll.resolve(spec, [("p", (1,))], total, per_epoch)
        ends = (np.arange(0, total, length)[:50, None] + np.arange(-20, 21)).ravel()
        steps = np.unique(np.concatenate([ends, rng.integers(0, total, 200)]))
        steps = steps[(steps >= 0) & (steps < total)]
        rates = kernel_rates(plan, plan.groups[0], steps)
        if rates is not None:
            natives += 1
            expected = plan.rates_before_scale(plan.groups[0], steps)
            seen = expected > 1e-30
            np.testing.assert_allclose(rates[seen], expected[seen], rtol=6e-7, atol=0, err_msg=str(spec))
    assert natives > 300
