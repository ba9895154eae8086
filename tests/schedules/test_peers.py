"""The schedules of transformers and timm against their published formulas, through torch's ``LambdaLR``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch.optim.lr_scheduler as tl

import layered_lr.schedules as ls
from layered_lr.errors import SpecError
from tests.support.schedule_oracle import RATES, STEPS, stepped

T = np.arange(STEPS)
LRS = RATES.tolist()


def like(schedule, factor, steps=STEPS):
    theirs = stepped(lambda optimizer: tl.LambdaLR(optimizer, factor), LRS, steps)
    np.testing.assert_allclose(schedule.rates(T[:steps], LRS), theirs, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose([schedule(t, LRS[7]) for t in range(steps)], theirs[:, 7], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("cycles", [0.5, 1.5, 0.25])
@pytest.mark.parametrize("warmup", [0, 1, 40])
def test_cosine_decay_is_transformers(warmup, cycles):
    def factor(step):  # transformers 5.23, optimization.py, get_cosine_schedule_with_warmup
        if step < warmup:
            return float(step) / float(max(1, warmup))
        progress = float(step - warmup) / float(max(1, STEPS - warmup))
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * float(cycles) * 2.0 * progress)))

    like(ls.CosineDecay(STEPS, warmup, num_cycles=cycles), factor)
    rate = 0.1
    like(
        ls.CosineDecay(STEPS, warmup, min_lr_rate=rate, num_cycles=cycles),
        lambda t: factor(t) if t < warmup else factor(t) * (1 - rate) + rate,
    )


@pytest.mark.parametrize("prefix", [False, True])
def test_cosine_decay_is_timms(prefix):
    length, warmup, first, low = 300, 30, 1e-5, 1e-3

    def rate(t, v):  # timm 1.0, scheduler/cosine_lr.py, CosineLRScheduler._get_lr with one cycle
        if t < warmup:
            return first + t * ((v - first) / warmup)
        t = t - warmup if prefix else t
        if t // length >= 1:
            return low
        return low + 0.5 * (v - low) * (1 + math.cos(math.pi * t / length))

    schedule = ls.CosineDecay(length + warmup * prefix, warmup, low, warmup_lr=first, warmup_prefix=prefix)
    for lr in (0.1, 1e-2, 3.0):
        np.testing.assert_allclose(schedule(T, lr), [rate(int(t), lr) for t in T], rtol=1e-12)
    assert schedule(10**6, 0.1) == low


@pytest.mark.parametrize(("warmup", "timescale"), [(0, None), (40, None), (40, 7), (40, 300)])
def test_inverse_sqrt_is_transformers(warmup, timescale):
    scale = timescale or warmup or 10_000

    def factor(step):
        if step < warmup:
            return float(step) / float(max(1, warmup))
        return 1.0 / math.sqrt((step + (scale - warmup)) / scale)

    like(ls.InverseSqrt(warmup, timescale), factor)


@pytest.mark.parametrize("rise", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("fall", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize(("warmup", "decay", "low"), [(30, 100, 0.1), (0, 50, 0.0), (20, 0, 0.2)])
def test_wsd_is_transformers(rise, fall, warmup, decay, low):
    stable = 250

    def factor(step):
        shape = 1.0
        if step < warmup:
            p = step / max(1, warmup)
            shape = {"linear": p, "cosine": 0.5 * (1 - math.cos(math.pi * p)), "1-sqrt": 1 - math.sqrt(1 - p)}[rise]
        elif step >= warmup + stable + decay:
            return low
        elif step >= warmup + stable:
            p = (step - warmup - stable) / max(1, decay)
            shape = {"linear": 1 - p, "cosine": 0.5 * (1 + math.cos(math.pi * p)), "1-sqrt": 1 - math.sqrt(p)}[fall]
        return shape * (1 - low) + low

    by_stable = ls.WSD(warmup, decay, stable_steps=stable, warmup_type=rise, decay_type=fall, min_lr_ratio=low)
    like(by_stable, factor)
    unbound = ls.WSD(warmup, decay, warmup_type=rise, decay_type=fall, min_lr_ratio=low)
    assert not unbound.is_bound
    np.testing.assert_array_equal(unbound.bind(warmup + stable + decay)(T, 0.1), by_stable(T, 0.1))


def test_warmup_gives_the_schedule_its_own_step_0_when_it_ends():
    then = ls.CosineAnnealingLR(100, 1e-3)
    for mode, start, ramp in (
        ("linear", None, lambda p: p),
        ("linear", 0.25, lambda p: 0.25 + 0.75 * p),
        ("exponential", 0.01, lambda p: 0.01 ** (1 - p)),
        ("constant", 0.1, lambda p: 0.1),
    ):
        schedule = ls.Warmup(20, then, start, mode)
        expected = [0.5 * ramp(t / 20) if t < 20 else then(t - 20, 0.5) for t in range(200)]
        np.testing.assert_allclose(schedule(T[:200], 0.5), expected, rtol=1e-13)
        np.testing.assert_allclose([schedule(t, 0.5) for t in range(200)], expected, rtol=1e-13)
    one = ls.OneCycleLR(0.4, 50)
    assert ls.Warmup(10, one)(5, 9.0) == pytest.approx(one(0, 9.0) / 2)
    assert ls.Warmup(0)(0, 0.1) == 0.1
    half = ls.Warmup(0.5, ls.StepLR(1, 0.5), unit="epoch", every_step=True)
    assert [half(half.position(t, 4), 1.0) for t in range(8)] == [0, 0.5, 1, 1, 1, 1, 0.5, 0.5]


def test_warmup_as_torch_would_write_it():
    def make(optimizer):
        parts = [tl.LinearLR(optimizer, 0.1, total_iters=20), tl.ExponentialLR(optimizer, 0.99)]
        return tl.SequentialLR(optimizer, parts, [20])

    theirs = stepped(make, LRS)
    ours = ls.Warmup(20, ls.ExponentialLR(0.99), 0.1).rates(T, LRS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_lengths_left_out_are_taken_from_the_run():
    unbound = ls.SequentialLR([ls.OneCycleLR(0.1), ls.Warmup(10, ls.CosineDecay()), ls.StepLR(3)], [40, 100])
    assert not unbound.is_bound
    bound = unbound.bind(300)
    assert bound.is_bound
    assert bound.schedulers[0] == ls.OneCycleLR(0.1, 40)
    assert bound.schedulers[1] == ls.Warmup(10, ls.CosineDecay(50))
    assert bound.bind(7) is bound
    assert ls.ChainedScheduler([ls.WSD(1, 2), ls.StepLR(3)]).bind(9).schedulers[0] == ls.WSD(1, 2, 9)
    assert ls.StepLR(3).bind(5) == ls.StepLR(3)
    with pytest.raises(SpecError, match=r"OneCycleLR does not know how long the run is: give OneCycleLR\(total_steps"):
        unbound(0, 0.1)
    with pytest.raises(SpecError, match=r"WSD\(warmup_steps=5, decay_steps=5\) needs 10 steps, and the run has 9"):
        ls.WSD(5, 5).bind(9)
