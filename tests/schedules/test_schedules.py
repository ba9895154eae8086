"""Schedules by themselves; torch's own StepLR is the oracle."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr as ll

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=100)
# Both compute lr * gamma ** k in float64, torch by Python's power and we by NumPy's: a few last digits apart.
EXACT = 1e-12
lrs, gammas = st.floats(1e-8, 10), st.floats(0.05, 1.5)


@FIXED
@given(lr=lrs, gamma=gammas, step_size=st.integers(1, 50), step=st.integers(0, 3000))
def test_steplr_is_torchs_closed_form(torch_steplr: Any, lr: float, gamma: float, step_size: int, step: int) -> None:
    step = min(step, 150 * step_size)  # 0.05 ** 150 is still far from the smallest float
    expected = torch_steplr(lr, step_size, gamma, [step])[0]
    assert ll.StepLR(step_size, gamma)(step, lr) == pytest.approx(expected, rel=EXACT, abs=0)


@FIXED
@given(lr=lrs, gamma=gammas, step_size=st.integers(1, 9))
def test_steplr_is_what_torch_applies_step_by_step(torch: Any, lr: float, gamma: float, step_size: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
    applied = []
    for _ in range(40):
        applied.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # torch multiplies at each of up to 40 boundaries, each time with a rounding error of at most 1.1e-16.
    np.testing.assert_allclose(ll.StepLR(step_size, gamma)(np.arange(40), lr), applied, rtol=1e-14)


@pytest.mark.parametrize("schedule", [ll.Constant(), ll.StepLR(3), ll.StepLR(2, gamma=0), ll.StepLR(1, gamma=1.5)])
@pytest.mark.parametrize("shape", [(0,), (1,), (24,), (4, 6), (2, 3, 4)])
def test_an_array_of_steps_gives_the_rate_of_each(schedule: ll.Schedule, shape: tuple[int, ...]) -> None:
    steps = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    rates = schedule(steps, 0.3)
    assert rates.shape == shape and rates.dtype == np.float64
    assert rates.ravel().tolist() == [schedule(int(step), 0.3) for step in steps.ravel()]


@pytest.mark.parametrize("step", [5, np.int32(5), np.array(5)])
def test_one_step_gives_a_float(step: Any) -> None:
    for schedule in (ll.Constant(), ll.StepLR(5, gamma=0.25)):
        rate = schedule(step, 0.5)
        assert type(rate) is float and rate == (0.125 if isinstance(schedule, ll.StepLR) else 0.5)


def test_the_boundaries() -> None:
    schedule = ll.StepLR(3, gamma=0.5)
    assert [schedule(step, 1.0) for step in (0, 2, 3, 5, 6, 3 * 2**20 - 1)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.0]


def test_a_factor_of_zero_one_and_a_rate_of_zero() -> None:
    assert [ll.StepLR(2, gamma=0)(step, 0.3) for step in range(4)] == [0.3, 0.3, 0, 0]
    assert [ll.StepLR(1, gamma=1)(step, 0.3) for step in (0, 7, 10**9)] == [0.3] * 3
    assert [ll.StepLR(1, gamma=0.5)(step, 0.0) for step in (0, 7)] == [0, 0]


def test_steps_that_float32_could_not_count() -> None:
    schedule = ll.StepLR(2**25 + 1, gamma=0.5)
    assert [schedule(step, 1.0) for step in (2**25, 2**25 + 1, 2**26 + 1, 2**26 + 2)] == [1.0, 0.5, 0.5, 0.25]


def test_the_same_rate_at_every_step_is_not_one_shared_cell() -> None:
    rates = ll.Constant()(np.arange(3), 0.5)
    assert not rates.flags.writeable or (rates.__setitem__(0, 9.0), rates[1])[1] == 0.5


def test_schedules_compare_by_kind_and_value() -> None:
    different = {ll.Constant(), ll.Constant(unit="epoch"), ll.StepLR(3), ll.StepLR(4), ll.StepLR(3, unit="epoch")}
    assert len(different) == 5 and ll.StepLR(3, gamma=0.1) in different
    assert ll.StepLR(3) != ll.Constant() and ll.StepLR(3) != 3


def test_a_rate_that_overflows_is_refused_and_none_is_nan() -> None:
    """10 ** 400 is no float: any rate times it would be infinite, and a rate of 0 a NaN."""
    growing = ll.StepLR(1, gamma=10.0)
    assert growing(400, 0.0) == 0.0
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=growing), [("w", (1,))])
    for ask in (lambda: plan.lr(400), lambda: plan.table(300, 401)):
        with pytest.raises(ll.SpecError, match=r"rest|gamma"):
            ask()
