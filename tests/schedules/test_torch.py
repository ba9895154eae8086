"""Every schedule of torch against torch's own, stepped.

Tolerances: 1e-12 relative, where torch evaluates a closed form or multiplies exactly; more, with the reason, where
torch's ``step()`` is a recursion and drifts from torch's own closed form.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import torch.optim.lr_scheduler as tl

import layered_lr.schedules as ls
from layered_lr.errors import SpecError
from tests.support.old_torch import is_oldest
from tests.support.schedule_oracle import RATES, STEPS, closed, stepped

EXACT = 1e-12
T = np.arange(STEPS)
rng = np.random.default_rng(7)

LRS = RATES.tolist()


def close(ours, theirs, rtol=EXACT, floor=0.0):
    """Within ``rtol`` of the rate, or within ``floor`` (one, or one per group)."""
    wrong = np.abs(np.asarray(ours) - theirs) - (rtol * np.abs(theirs) + floor)
    place = np.unravel_index(wrong.argmax(), wrong.shape)
    assert wrong.max() <= 0, f"{wrong.max():.3g} beyond the tolerance at {place}"


def slack(arguments):
    """What is left of a rate where it should be 0; and where eta_min is above lr, the recursion is eta_min's."""
    low = arguments.get("eta_min", 0.0)
    return RATES * 2e-16 + np.where(low > RATES, 1e-10 * low, 0.0)


def numbers(low, high, count=4):
    return [int(n) for n in rng.integers(low, high, count)]


def reals(low, high, count=4):
    return [float(x) for x in rng.uniform(low, high, count)]


def both(name, rtol, **arguments):
    plain = {key: value for key, value in arguments.items() if not callable(value)}  # a function's name is its address
    return pytest.param(name, arguments, rtol, id=f"{name}-{plain}")


# n multiplications by a factor, each rounded: n * 1.1e-16 for n <= 500
CASES = [
    *(both("StepLR", EXACT, step_size=n, gamma=g) for n, g in zip(numbers(1, 90), reals(0.01, 1.2), strict=True)),
    both("StepLR", EXACT, step_size=1),
    both("StepLR", EXACT, step_size=7, gamma=0.0),
    *(both("MultiStepLR", EXACT, milestones=sorted(numbers(0, 480, 6)), gamma=g) for g in reals(0.05, 1.5)),
    both("MultiStepLR", EXACT, milestones=[0, 3, 3, 3, 9], gamma=0.5),
    both("MultiStepLR", EXACT, milestones=[0, 0], gamma=0.3),
    both("MultiStepLR", EXACT, milestones=[]),
    *(both("ConstantLR", EXACT, factor=f, total_iters=n) for f, n in zip(reals(0.01, 1), numbers(1, 520), strict=True)),
    both("ConstantLR", EXACT, factor=0.3, total_iters=0),
    both("ConstantLR", EXACT),
    # one rounding per step in 1 + a / (b + c * t), each up to 3 ulp
    *(
        both("LinearLR", EXACT, start_factor=a, end_factor=b, total_iters=n)
        for a, b, n in zip(reals(0.001, 1, 6), reals(0.01, 1, 6), numbers(1, 520, 6), strict=True)
    ),
    both("LinearLR", EXACT, start_factor=0.3, total_iters=0),
    both("LinearLR", EXACT),
    *(both("ExponentialLR", EXACT, gamma=g) for g in [*reals(0.8, 1.01), 1.0, 0.0]),
    # 1 - t / T cancels to 1 / T of itself at the end: each ratio is good to T * 1.1e-16 there
    *(
        both("PolynomialLR", 1e-11, total_iters=n, power=p)
        for p, n in zip(reals(0.1, 3, 6), numbers(1, 520, 6), strict=True)
    ),
    both("PolynomialLR", EXACT, total_iters=0),
    both("PolynomialLR", EXACT),
    # 1 + cos cancels to (pi / T)**2 / 2 of itself next to T_max: that step's ratio is good to 1.1e-16 / 2e-5 = 5e-12
    # for T = 500, and the rise after T_max keeps that error
    *(
        both("CosineAnnealingLR", 1e-10, T_max=n, eta_min=m)
        for m, n in zip([0.0, *reals(0, 0.1, 7)], [500, *numbers(1, 500, 7)], strict=True)
    ),
    both("CosineAnnealingLR", 1e-10, T_max=1),
    both("CosineAnnealingLR", 1e-10, T_max=2, eta_min=1e-3),
    *(
        both("CosineAnnealingWarmRestarts", EXACT, T_0=n, T_mult=k, eta_min=m)
        for n, k, m in zip(numbers(1, 120, 6), [1, 1, 2, 2, 3, 5], reals(0, 0.01, 6), strict=True)
    ),
    both("CosineAnnealingWarmRestarts", EXACT, T_0=1, T_mult=1),
    both("CosineAnnealingWarmRestarts", EXACT, T_0=1, T_mult=2),
    *(both("LambdaLR", EXACT, lr_lambda=f) for f in (math.sqrt, lambda t: 0.95**t, lambda t: t < 30)),
    *(both("MultiplicativeLR", EXACT, lr_lambda=f) for f in (lambda t: 0.99, lambda t: 1 + 0.1 * math.sin(t))),
]


@pytest.mark.parametrize(("name", "arguments", "rtol"), CASES)
def test_every_step_is_torchs(name, arguments, rtol):
    theirs = stepped(lambda optimizer: getattr(tl, name)(optimizer, **arguments), LRS)
    schedule = getattr(ls, name)(**arguments)
    floor = slack(arguments) if rtol > EXACT else 1e-300
    close(schedule.rates(T, LRS), theirs, rtol, floor)
    close([schedule.rates(int(t), RATES) for t in range(0, STEPS, 7)], theirs[::7], rtol, floor)


@pytest.mark.parametrize(
    ("name", "arguments", "rtol"),
    [
        case
        for case in CASES
        if case.values[0] not in ("LambdaLR", "MultiplicativeLR", "CosineAnnealingWarmRestarts")
        and case.values[1].get("total_iters") != 0
    ],
)
def test_every_step_is_torchs_closed_form(name, arguments, rtol):
    theirs = closed(lambda optimizer: getattr(tl, name)(optimizer, **arguments), LRS)
    schedule = getattr(ls, name)(**arguments)
    # where eta_min is far above a group's lr, torch's own lr - eta_min + eta_min is only good to eta_min's ulp
    floor = 3e-17 * arguments.get("eta_min", 0)
    close(schedule.rates(T, LRS), theirs, EXACT, floor)
    close([schedule(t, LRS[3]) for t in range(STEPS)], theirs[:, 3], EXACT, floor)


CYCLIC = [
    {"mode": "triangular", "step_size_up": 20},
    {"mode": "triangular", "step_size_up": 1, "step_size_down": 1},
    {"mode": "triangular2", "step_size_up": 13, "step_size_down": 29},
    {"mode": "exp_range", "step_size_up": 31, "step_size_down": 5, "gamma": 0.97},
    {"scale_fn": lambda x: 1 / x, "step_size_up": 17},
    {"scale_fn": lambda x: 0.99**x, "scale_mode": "iterations", "step_size_up": 17, "step_size_down": 40},
    {"mode": "triangular", "step_size_up": 2000},
]


@pytest.mark.parametrize("arguments", CYCLIC)
def test_cyclic_is_torchs(arguments):
    lows, highs = RATES / 10, RATES
    make = lambda optimizer: tl.CyclicLR(optimizer, lows.tolist(), highs.tolist(), **arguments)  # noqa: E731
    rates, momenta = stepped(make, LRS), stepped(make, LRS, key="momentum")
    for group in range(len(LRS)):
        schedule = ls.CyclicLR(float(lows[group]), float(highs[group]), **arguments)
        close(schedule(T, 0.123), rates[:, group])
        close([schedule(t, 0.123) for t in range(0, STEPS, 50)], rates[::50, group])
        close(schedule.momentum(T), momenta[:, group])
    assert schedule.drives_momentum
    assert ls.CyclicLR(0.1, 0.2, cycle_momentum=False).momentum(3) is None


ONECYCLE = [
    {"total_steps": 500},
    {"total_steps": 500, "anneal_strategy": "linear", "pct_start": 0.41},
    {"total_steps": 499, "three_phase": True},
    {"total_steps": 499, "three_phase": True, "pct_start": 0.7, "anneal_strategy": "linear"},
    {"epochs": 10, "steps_per_epoch": 50, "div_factor": 3.0, "final_div_factor": 1.0},
    {"total_steps": 500, "pct_start": 0.0},
    {"total_steps": 500, "pct_start": 0.001, "three_phase": True},
    {"total_steps": 3, "pct_start": 0.25},
    {"total_steps": 2},
    {"total_steps": 1},
    {"total_steps": 1, "three_phase": True, "pct_start": 0.5},
    {"total_steps": 10, "base_momentum": 0.7, "max_momentum": 0.99},
]


@pytest.mark.parametrize("arguments", ONECYCLE)
def test_onecycle_is_torchs(arguments):
    steps = arguments.get("total_steps", 500)
    make = lambda optimizer: tl.OneCycleLR(optimizer, LRS, **arguments)  # noqa: E731
    rates, momenta = stepped(make, LRS, steps), stepped(make, LRS, steps, key="momentum")
    for group, max_lr in enumerate(LRS):
        schedule = ls.OneCycleLR(max_lr, **arguments)
        # 1 + cos ends at the part of the top that final_div_factor leaves: torch's own rounding is max_lr's there
        close(schedule(T[:steps], 0.1), rates[:, group], floor=1e-17 * max_lr)
        close([schedule(int(t), 0.1) for t in T[:steps:9]], rates[::9, group], floor=1e-17 * max_lr)
        close(schedule.momentum(T[:steps]), momenta[:, group])


def test_onecycle_holds_where_torch_goes_wrong():
    assert ls.OneCycleLR(1.0, 10, pct_start=0.1)(0, 0.1) == 1.0  # torch: ZeroDivisionError
    assert ls.OneCycleLR(1.0, 1, pct_start=1.0)(0, 0.1) == pytest.approx(1 / 25 / 1e4)
    linear = ls.OneCycleLR(1.0, 10, anneal_strategy="linear")
    theirs = stepped(lambda optimizer: tl.OneCycleLR(optimizer, 1.0, 10, anneal_strategy="linear"), [1.0], 11)
    assert theirs[10, 0] < 0  # the extrapolation that no update sees
    assert linear(10, 0.1) == linear(9, 0.1) == pytest.approx(theirs[9, 0], rel=1e-12)
    with pytest.raises(
        SpecError, match=r"OneCycleLR\(total_steps=10\) was asked for step 11, after the end of its cycle"
    ):
        linear(11, 0.1)


def test_total_iters_0_follows_what_torchs_step_does():
    # torch's closed form would give lr for ConstantLR, and divides by zero for the other two
    assert ls.ConstantLR(0.3, 0)(9, 1.0) == 0.3
    assert ls.LinearLR(0.3, total_iters=0)(9, 1.0) == 0.3
    assert ls.PolynomialLR(0)(9, 1.0) == 1.0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 5}),
        ("MultiStepLR", {"milestones": [3, 17, 30]}),
        ("LinearLR", {"total_iters": 40}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 33, "eta_min": 1e-3}),
        ("LambdaLR", {"lr_lambda": lambda t: 0.9**t}),
        ("PolynomialLR", {"total_iters": 60, "power": 2.0}),
    ],
)
@pytest.mark.parametrize("last", [0, 16, 29])
def test_resuming_with_last_epoch(name, arguments, last):
    """A new torch scheduler goes on at step ``last + 1``.

    Some of its schedulers expect the optimizer's rate to be that step's already, the others step to it.
    """
    if is_oldest() and name in ("LinearLR", "ExponentialLR", "PolynomialLR"):
        pytest.skip("torch 2.4 takes a step when the scheduler is made, and is one step ahead")
    schedule = getattr(ls, name)(**arguments)
    has = last if name in ("StepLR", "MultiStepLR", "LambdaLR") else last + 1

    def make(optimizer):
        for group, lr in zip(optimizer.param_groups, LRS, strict=True):
            group["initial_lr"], group["lr"] = lr, schedule(has, lr)
        return getattr(tl, name)(optimizer, **arguments, last_epoch=last)

    theirs = stepped(make, LRS, 30)
    close(schedule.rates(np.arange(last + 1, last + 31), LRS), theirs, 1e-10, slack(arguments))


@pytest.mark.parametrize("mult", [1, 2])
def test_fractional_epochs_as_in_torch(mult):
    iters = 7
    schedule = ls.CosineAnnealingWarmRestarts(10, mult, 1e-4, unit="epoch", every_step=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = tl.CosineAnnealingWarmRestarts(optimizer, 10, mult, 1e-4)
    theirs = []
    for step in range(60 * iters):
        epoch, i = divmod(step, iters)
        scheduler.step(epoch + i / iters)
        theirs.append(optimizer.param_groups[0]["lr"])
    close(schedule(schedule.position(np.arange(60 * iters), iters), 0.1), theirs)
    close([schedule(schedule.position(step, iters), 0.1) for step in range(60 * iters)], theirs)


def test_restarts_are_where_torch_steps_to_them_and_not_where_its_logarithm_does():
    schedule = ls.CosineAnnealingWarmRestarts(1, 3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    tl.CosineAnnealingWarmRestarts(optimizer, 1, 3).step(121)  # 121 = 1 + 3 + 9 + 27 + 81
    assert optimizer.param_groups[0]["lr"] == 0.0
    theirs = stepped(lambda optimizer: tl.CosineAnnealingWarmRestarts(optimizer, 1, 3), [0.1], 122)
    assert schedule(121, 0.1) == theirs[121, 0] == 0.1


def test_a_line_ends_at_its_end_factor_itself():
    theirs = closed(lambda optimizer: tl.LinearLR(optimizer, 0.05819472010038989, 0.0, 177), [0.1])
    assert theirs[177:].max() < 0  # torch's rounding
    assert ls.LinearLR(0.05819472010038989, 0.0, 177)(177, 0.1) == 0.0
    for length in range(1, 400):
        start, end = rng.uniform(1e-3, 1, 2)
        line = ls.LinearLR(float(start), float(end), length)
        assert line(length, 1.0) == line(np.arange(length, length + 2), 1.0)[1] == end
        assert ls.LinearLR(float(start), 0.0, length)(np.arange(length, length + 2), 1.0).max() == 0.0


def test_steps_between_whole_ones():
    assert ls.StepLR(3, 0.5)(2.9, 1.0) == 1.0
    assert ls.MultiStepLR([3])(2.9, 1.0) == 1.0
    assert ls.ConstantLR(0.5, 3)(2.9, 1.0) == 0.5
    assert ls.ExponentialLR(0.25)(0.5, 1.0) == 0.5
    assert ls.LinearLR(0.5, total_iters=2)(0.5, 1.0) == pytest.approx(0.625)
    assert ls.MultiplicativeLR(lambda t: 0.5)(1.9, 1.0) == 0.5
    assert ls.LambdaLR(lambda t: t)(1.5, 1.0) == 1.5
    assert ls.Table([1.0, 2.0])(1.9, 1.0) == 2.0
    assert ls.StepLR(1, unit="epoch").position(np.arange(5), 2).tolist() == [0, 0, 1, 1, 2]


def chained(*parts):
    return lambda optimizer: tl.ChainedScheduler([getattr(tl, n)(optimizer, **a) for n, a in parts])


def sequential(milestones, *parts):
    return lambda optimizer: tl.SequentialLR(optimizer, [getattr(tl, n)(optimizer, **a) for n, a in parts], milestones)


STEP, EXP = ("StepLR", {"step_size": 40, "gamma": 0.5}), ("ExponentialLR", {"gamma": 0.995})
CONST, LIN = ("ConstantLR", {"factor": 0.1, "total_iters": 20}), ("LinearLR", {"start_factor": 0.1, "total_iters": 30})
COS, COS90 = ("CosineAnnealingLR", {"T_max": 60}), ("CosineAnnealingLR", {"T_max": 90})
COSMIN = ("CosineAnnealingLR", {"T_max": 90, "eta_min": 1e-3})
WARM = ("CosineAnnealingWarmRestarts", {"T_0": 20, "T_mult": 2, "eta_min": 1e-5})
LAMBDA, MULT = ("LambdaLR", {"lr_lambda": lambda t: 0.98**t}), ("MultiplicativeLR", {"lr_lambda": lambda t: 0.99})
MULTI, POLY = ("MultiStepLR", {"milestones": [0, 7, 7, 99]}), ("PolynomialLR", {"total_iters": 450, "power": 0.9})


@pytest.mark.parametrize(
    "parts",
    [
        (CONST, EXP),
        (LIN, STEP),
        (LIN, EXP, MULTI),
        (MULT, STEP),
        (POLY, LIN),
        (STEP,),
        (LIN, COS),
        (COS, LIN),
        (COSMIN, EXP),
        (EXP, COSMIN),
        (COS, COS90),
        (LIN, COSMIN, STEP),
        (LAMBDA, STEP),
        (STEP, LAMBDA),
        (WARM, EXP),
        (EXP, WARM),
        (LAMBDA, WARM, EXP),
    ],
)
def test_chains_are_torchs(parts):
    schedule = ls.ChainedScheduler([getattr(ls, n)(**a) for n, a in parts])
    # below eta_min torch's chained cosine goes negative, which is refused (next test)
    lrs = [lr for lr in LRS if lr > 0.05] if COSMIN in parts else LRS
    theirs = stepped(chained(*parts), lrs)
    # torch's recursions multiply up to 500 rounded ratios of each part; the cosine's next to T_max as above
    rtol = 1e-10 if any("Cosine" in n for n, _ in parts) else 1e-11
    floor = RATES.max() * 1e-16
    close(schedule.rates(T, lrs), theirs, rtol, floor)
    close([schedule(t, lrs[5]) for t in range(STEPS)], theirs[:, 5], rtol, floor)


ZERO_POLY, ZERO_LIN = ("PolynomialLR", {"total_iters": 30}), ("LinearLR", {"end_factor": 0.0, "total_iters": 25})
ZERO_STEP, ZERO_EXP = ("StepLR", {"step_size": 20, "gamma": 0.0}), ("ExponentialLR", {"gamma": 0.0})
ZERO_MULTI = ("MultiStepLR", {"milestones": [9, 9, 40], "gamma": 0.0})
ZERO_MULT = ("MultiplicativeLR", {"lr_lambda": lambda t: 0.5 * (t != 7)})
ZEROS = {
    "poly": ZERO_POLY, "linear": ZERO_LIN, "step": ZERO_STEP, "exp": ZERO_EXP, "multi": ZERO_MULTI, "mult": ZERO_MULT,
}  # fmt: skip
ONE = ("OneCycleLR", {"max_lr": 0.3, "total_steps": STEPS})
CYCLE = ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 30, "cycle_momentum": False})


@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS)
@pytest.mark.parametrize("setter", [WARM, LAMBDA, COS, ONE], ids=["restarts", "lambda", "cosine", "onecycle"])
@pytest.mark.parametrize("first", ["setter", "zero"])
def test_a_chain_goes_on_as_torchs_behind_a_factor_that_has_come_to_0(zero, setter, first):
    parts = (setter, zero) if first == "setter" else (zero, setter)
    schedule = ls.ChainedScheduler([getattr(ls, n)(**a) for n, a in parts])
    theirs = stepped(chained(*parts), LRS)
    # as above; where the factor of torch's LinearLR comes to 0, its rounding leaves up to 5e-15 of it, or below 0
    close(schedule.rates(T, LRS), theirs, 1e-10, RATES.max() * 5e-15)


@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS)
def test_a_chain_of_factors_alone_stays_at_0(zero):
    schedule = ls.ChainedScheduler([ls.ExponentialLR(0.995), getattr(ls, zero[0])(**zero[1])])
    close(schedule.rates(T, LRS), stepped(chained(EXP, zero), LRS), 1e-10, RATES.max() * 5e-15)


@pytest.mark.parametrize("parts", [(LAMBDA, ONE), (COS, ONE), (ONE, EXP), (CYCLE, EXP), (EXP, ONE), (ONE, ONE)])
def test_chains_with_cycles_are_torchs(parts):
    schedule = ls.ChainedScheduler([getattr(ls, n)(**a) for n, a in parts])
    close(schedule.rates(T, LRS), stepped(chained(*parts), LRS), 1e-10)


@pytest.mark.parametrize("parts", [(ONE, LAMBDA), (ONE, COS), (ONE, WARM), (CYCLE, LAMBDA), (EXP, CYCLE), (ONE, CYCLE)])
def test_chains_in_which_torch_changes_where_a_schedule_starts_are_refused(parts):
    ours = [getattr(ls, n)(**a) for n, a in parts]
    alone = ls.ChainedScheduler(ours[1:]).rates(T, LRS)
    theirs = stepped(chained(*parts), LRS)
    if parts[0] is not EXP:  # what comes last sets the rate, and torch's is not its own
        assert np.abs(alone - theirs).max() > 1e-3
    with pytest.raises(SpecError, match=f"ChainedScheduler: {parts[1][0]} stands behind {parts[0][0]}"):
        ls.ChainedScheduler(ours)
    inner = ls.SequentialLR(ours[1:], [])
    with pytest.raises(SpecError, match=f"ChainedScheduler: SequentialLR stands behind {parts[0][0]}"):
        ls.ChainedScheduler([ours[0], inner])


def test_a_chain_that_torch_drives_below_0_is_refused():
    theirs = stepped(chained(COSMIN, EXP), [1e-5])
    assert theirs[99, 0] < 0
    schedule = ls.ChainedScheduler([ls.CosineAnnealingLR(90, 1e-3), ls.ExponentialLR(0.995)])
    with pytest.raises(SpecError, match=r"gives the rate -.* at step 99 for lr 1e-05: a rate must be a finite number"):
        schedule(99, 1e-5)


@pytest.mark.parametrize(
    ("milestones", "parts"),
    [
        ([20], (CONST, EXP)),
        ([30], (LIN, COS)),
        ([5, 100], (LIN, STEP, COSMIN)),
        ([0], (LIN, EXP)),
        ([9, 9], (CONST, LIN, EXP)),
        ([25], (LIN, WARM)),
        ([50], (LAMBDA, LAMBDA)),
        ([10, 200], (MULT, MULTI, POLY)),
        ([], (STEP,)),
        ([600], (EXP, STEP)),
    ],
)
def test_sequences_are_torchs(milestones, parts):
    if is_oldest() and milestones == [0]:
        pytest.skip("torch 2.4 has other rates where the first schedule has no step")
    schedule = ls.SequentialLR([getattr(ls, n)(**a) for n, a in parts], milestones)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stepped(sequential(milestones, *parts), LRS)
    rtol = 1e-10 if any("Cosine" in n for n, _ in parts) else 1e-11
    close(schedule.rates(T, LRS), theirs, rtol, RATES.max() * 1e-16)
    close([schedule(t, LRS[5]) for t in range(STEPS)], theirs[:, 5], rtol, RATES.max() * 1e-16)


def test_sequence_inside_a_chain_is_torchs():
    inner = (("LinearLR", {"start_factor": 0.2, "total_iters": 10}), ("CosineAnnealingLR", {"T_max": 100}))
    make = lambda o: tl.ChainedScheduler([sequential([10], *inner)(o), tl.StepLR(o, 35, 0.5)])  # noqa: E731
    schedule = ls.ChainedScheduler([ls.SequentialLR([getattr(ls, n)(**a) for n, a in inner], [10]), ls.StepLR(35, 0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stepped(make, LRS)
    close(schedule.rates(T, LRS), theirs, 1e-10, RATES.max() * 1e-16)


def test_momentum_through_composites():
    one = ls.OneCycleLR(0.1, 100)
    parts = ls.SequentialLR([ls.ConstantLR(), one, ls.StepLR(3)], [10, 60])

    def make(optimizer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tl.SequentialLR(
                optimizer,
                [tl.ConstantLR(optimizer), tl.OneCycleLR(optimizer, 0.1, 100), tl.StepLR(optimizer, 3)],
                [10, 60],
            )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stepped(make, [0.1], 100, key="momentum")[:, 0]
    close(parts.momentum(np.arange(100)), theirs)
    close(ls.Warmup(5, one).momentum(np.arange(100))[5:], one.momentum(np.arange(95)))
    close(ls.ChainedScheduler([ls.StepLR(3), one]).momentum(np.arange(100)), one.momentum(np.arange(100)))
    assert one.momentum(3) == pytest.approx(one.momentum(np.array([3]))[0])
    assert ls.StepLR(3).momentum(3) is None
