"""Schedules as data: equal, hashable, saved and read; wrong arguments; numbers of every kind."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr.schedules as ls
from layered_lr.errors import SpecError
from layered_lr.spec.toml import read_toml

EXAMPLES = [
    ls.Constant(),
    ls.LambdaLR("math:sqrt"),
    ls.MultiplicativeLR("math:sqrt", unit="epoch"),
    ls.StepLR(30),
    ls.StepLR(30, 0.5, unit="epoch", every_step=True),
    ls.MultiStepLR([3, 3, 9], 0.5),
    ls.ConstantLR(0.5, 3),
    ls.LinearLR(0.5, 0.25, 10),
    ls.ExponentialLR(0.9),
    ls.PolynomialLR(10, 2),
    ls.CosineAnnealingLR(10, 1e-3),
    ls.CosineAnnealingWarmRestarts(10, 2, 1e-3),
    ls.CyclicLR(0.1, 1, 10, 20, "exp_range", 0.99, cycle_momentum=False),
    ls.CyclicLR(0.1, 1, scale_fn="math:sqrt", scale_mode="iterations"),
    ls.OneCycleLR(0.1),
    ls.OneCycleLR(0.1, epochs=3, steps_per_epoch=4, three_phase=True, anneal_strategy="linear"),
    ls.ReduceLROnPlateau("max", metric="accuracy", min_lr=1e-5),
    ls.ReduceLROnPlateau(metric="math:sqrt", unit="step"),
    ls.SequentialLR([ls.LinearLR(), ls.ChainedScheduler([ls.StepLR(3), ls.ExponentialLR(0.9)])], [5], unit="epoch"),
    ls.ChainedScheduler([ls.LinearLR(), ls.CosineAnnealingLR(10)]),
    ls.Warmup(500, ls.ReduceLROnPlateau(patience=3)),
    ls.Warmup(0.5, ls.CosineAnnealingLR(9), 0.1, "exponential", unit="epoch", every_step=True),
    ls.CosineDecay(None, 100, 1e-5),
    ls.InverseSqrt(4000),
    ls.WSD(10, 20, 100, decay_type="1-sqrt"),
    ls.Table([0.1, 0.2, 0.3], factor=True),
    ls.Function("math:sqrt"),
]


def test_every_schedule_is_among_the_examples():
    assert {type(one).__name__ for one in EXAMPLES} == set(ls.SCHEDULES)


@pytest.mark.parametrize("schedule", EXAMPLES)
def test_it_is_data(schedule):
    plain = ls.schedule_to_dict(schedule)
    assert ls.schedule_from_dict(plain) == schedule
    assert ls.schedule_from_dict(read_toml(tomli_w.dumps(plain))) == schedule
    assert ls.schedule_from_dict(json.loads(json.dumps(plain))) == schedule
    assert hash(ls.schedule_from_dict(plain)) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == replace(schedule) == schedule
    with pytest.raises(FrozenInstanceError):
        schedule.unit = "epoch"
    if "Table" not in repr(schedule):
        assert eval(repr(schedule), vars(ls)) == schedule


def test_what_equals_its_default_is_left_out():
    assert ls.schedule_to_dict(ls.StepLR(30)) == {"type": "StepLR", "step_size": 30}
    assert ls.schedule_to_dict(ls.Warmup(5)) == {"type": "Warmup", "warmup_steps": 5}
    nested = ls.SequentialLR([ls.LinearLR(), ls.StepLR(3)], [5], unit="epoch")
    assert ls.schedule_to_dict(nested) == {
        "type": "SequentialLR",
        "schedulers": [{"type": "LinearLR"}, {"type": "StepLR", "step_size": 3}],
        "milestones": [5],
        "unit": "epoch",
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"step_size": 3}, "A schedule needs 'type'"),
        ({"type": "StepLr", "step_size": 3}, r"type='StepLr' is not a schedule. Did you mean 'StepLR'\?"),
        ({"type": 3}, "type=3 is not a schedule"),
        ({"type": "StepLR", "step_siz": 3}, r"StepLR has no 'step_siz'. Did you mean 'step_size'\?"),
        ({"type": "StepLR"}, "StepLR needs 'step_size'"),
        ({"type": "StepLR", "step_size": "3"}, "step_size must be a whole number"),
        ({"type": "SequentialLR", "schedulers": [{"type": "Step"}], "milestones": []}, "type='Step' is not a schedule"),
        ({"type": "SequentialLR", "schedulers": [3], "milestones": []}, "schedulers must be a schedule of layered_lr"),
        ({"type": "Warmup", "warmup_steps": 3, "then": "StepLR"}, "then must be a schedule of layered_lr"),
        ("StepLR", "A schedule must be a table such as"),
    ],
)
def test_wrong_data(data, message):
    with pytest.raises(SpecError, match=message):
        ls.schedule_from_dict(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.CosineAnnealingLR(0), "T_max must be a whole number >= 1"),
        (lambda: ls.StepLR(3, math.nan), r"StepLR\(gamma=nan\): gamma must be a finite number"),
        (lambda: ls.StepLR(3, -1), "gamma must be a finite number >= 0"),
        (lambda: ls.StepLR(True), "step_size must be a whole number"),
        (lambda: ls.StepLR(2**60), "step_size must be a whole number <= 9.0072e"),
        (lambda: ls.MultiStepLR([5, 3]), "milestones must ascend, but 3 comes after 5"),
        (lambda: ls.MultiStepLR([-1]), "milestones must be a whole number >= 0"),
        (lambda: ls.MultiStepLR("35"), "milestones must be"),
        (lambda: ls.ConstantLR(1.5), "factor must be a finite number <= 1"),
        (lambda: ls.LinearLR(0), "start_factor must be a finite number > 0"),
        (lambda: ls.CyclicLR(0.1, 0.01), "max_lr must be >= base_lr"),
        (
            lambda: ls.CyclicLR(0.1, 1, mode="triangle"),
            "mode must be one of 'triangular', 'triangular2' or 'exp_range'",
        ),
        (lambda: ls.OneCycleLR(0.1, pct_start=2), "pct_start must be a finite number <= 1"),
        (lambda: ls.OneCycleLR(0.1, epochs=3), "give both of them, or total_steps, or none"),
        (lambda: ls.OneCycleLR(0.1, anneal_strategy="cosine"), "anneal_strategy must be one of 'cos' or 'linear'"),
        (lambda: ls.OneCycleLR(0.1, div_factor=0), "div_factor must be a finite number > 0"),
        (lambda: ls.ReduceLROnPlateau(factor=1.0), "factor must be a finite number < 1"),
        (lambda: ls.ReduceLROnPlateau(every_step=True, unit="epoch"), "it changes the rate when it reads a metric"),
        (lambda: ls.CosineAnnealingWarmRestarts(10, 1.5), "T_mult must be a whole number"),
        (lambda: ls.SequentialLR([], []), "schedulers must hold at least one schedule"),
        (lambda: ls.SequentialLR([ls.StepLR(3)], [3]), "1 schedulers need 0 milestones"),
        (lambda: ls.SequentialLR([ls.StepLR(3)] * 3, [5, 3]), "milestones must ascend"),
        (
            lambda: ls.SequentialLR([ls.StepLR(3, unit="epoch")], []),
            "counts epochs, but the schedule around it.*Give unit='epoch' to the SequentialLR",
        ),
        (lambda: ls.ChainedScheduler([ls.CosineAnnealingLR(3)], unit="epoch", every_step=True), "Leave every_step out"),
        (lambda: ls.StepLR(3, every_step=True), "every_step needs unit='epoch'"),
        (lambda: ls.Warmup(3, mode="exponential"), "needs start_factor"),
        (lambda: ls.Warmup(-1), "warmup_steps must be a finite number >= 0"),
        (lambda: ls.CosineDecay(10, 11), "total_steps must be > 0 and at least warmup_steps"),
        (lambda: ls.CosineDecay(10, min_lr=0.1, min_lr_rate=0.1), "give only one of them"),
        (lambda: ls.WSD(1, 2, 10, 7), "give only one of them"),
        (lambda: ls.StepLR(3)(-1, 0.1), "step=-1: a step must be a finite number >= 0"),
        (lambda: ls.StepLR(3)(math.nan, 0.1), "a step must be a finite number >= 0"),
        (lambda: ls.StepLR(3)("x", 0.1), "a step must be a number"),
        (lambda: ls.StepLR(3)(10**400, 0.1), "a step must be a number"),
        (lambda: ls.StepLR(3)(np.array([1, math.inf]), 0.1), "step=inf"),
        (lambda: ls.StepLR(3)(1, -0.1), "lr=-0.1: a group's lr must be a finite number >= 0"),
        (lambda: ls.StepLR(3)(1, "0.1"), "a group's lr must be"),
        (
            lambda: ls.ExponentialLR(10)(400, 0.1),
            r"ExponentialLR\(gamma=10.0\) gives the rate inf at step 400 for lr 0.1",
        ),
        (lambda: ls.ExponentialLR(10)(np.arange(500), 0.1), "gives the rate inf at step 309"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(SpecError, match=message):
        make()


ANY = st.one_of(
    st.integers(-3, 60),
    st.floats(),
    st.floats(0, 1.5),
    st.integers(),
    st.none(),
    st.booleans(),
    st.sampled_from(["cos", "rel", ""]),
)
STEPS = st.one_of(
    st.integers(0, 100),
    st.floats(0, 100),
    st.floats(),
    st.integers(),
    st.lists(st.one_of(st.integers(0, 10**5), st.floats(0, 1e4)), max_size=300).map(
        lambda steps: np.array(steps, float)
    ),
)
KINDS = [
    kind for kind in ls.SCHEDULES.values() if kind not in (ls.SequentialLR, ls.ChainedScheduler, ls.Warmup, ls.Table)
]


@st.composite
def schedules(draw, depth=2):
    kind = draw(
        st.sampled_from([*KINDS, ls.Table, *([ls.SequentialLR, ls.ChainedScheduler, ls.Warmup] if depth else [])])
    )
    if kind is ls.Table:
        return kind(draw(st.lists(ANY, max_size=5)), factor=draw(st.booleans()))
    if kind in (ls.SequentialLR, ls.ChainedScheduler):
        children = draw(st.lists(schedules(depth - 1), min_size=1, max_size=3))
        milestones = sorted(draw(st.lists(st.integers(0, 90), min_size=len(children) - 1, max_size=len(children) - 1)))
        return kind(children, milestones) if kind is ls.SequentialLR else kind(children)
    if kind is ls.Warmup:
        return kind(draw(ANY), draw(schedules(depth - 1)), draw(st.one_of(st.none(), st.floats(0, 1))))
    if kind in (ls.LambdaLR, ls.MultiplicativeLR, ls.Function):
        return kind(
            draw(st.sampled_from([lambda s: 0.9, lambda s: 1 / s, lambda s: "a", lambda s: s - 5, math.sqrt, math.exp]))
        )
    if kind is ls.MultiStepLR:
        return kind(draw(st.lists(ANY, max_size=4)), draw(ANY))
    names = [name for name in kind.__dataclass_fields__ if name not in ("unit", "every_step")]
    usual = draw(st.booleans())  # else nearly every schedule is refused when made
    values = st.one_of(st.floats(0, 1), st.integers(1, 60)) if usual else ANY
    if usual:
        names = [
            n
            for n in names
            if n
            not in (
                "mode",
                "metric",
                "threshold_mode",
                "scale_fn",
                "scale_mode",
                "cycle_momentum",
                "anneal_strategy",
                "three_phase",
                "warmup_prefix",
                "warmup_type",
                "decay_type",
                "epochs",
                "steps_per_epoch",
            )
        ]
    return kind(**{name: draw(values) for name in names})


@pytest.mark.slow
@settings(max_examples=700, deadline=None)
@given(st.data())
def test_any_numbers_give_finite_rates_or_a_spec_error(data):
    """Never another exception, nor a NumPy warning (warnings are errors)."""
    try:
        schedule = data.draw(schedules())
        schedule = schedule.bind(data.draw(st.integers(1, 100)))
        step, lr = data.draw(STEPS), data.draw(st.one_of(st.floats(0, 1), st.floats()))
        rates = schedule(step, lr)
        momentum = schedule.momentum(step)
    except SpecError:
        return
    assert np.all(np.isfinite(rates) & (np.asarray(rates) >= 0))
    assert np.shape(rates) == np.shape(step)
    assert momentum is None or np.shape(momentum) == np.shape(step)
    if np.ndim(step):
        assert [schedule(one, lr) for one in step.tolist()] == rates.tolist()


def test_a_rate_of_0_stays_0_whatever_multiplies_it():
    schedule = ls.StepLR(1, 10.0)
    assert schedule(400, 0.0) == 0.0
    assert schedule(np.arange(500), 0.0).max() == schedule.rates(400, [0.0, 0.0]).max() == 0.0


def test_importing_the_schedules_loads_no_framework():
    code = "import sys, layered_lr.schedules; print({'torch', 'oneflow', 'scipy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
