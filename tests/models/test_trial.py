"""What is compared of a pass in training, and how near it has to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layered_lr.models.trial import Pass, Trial, count_images, disturb, find_far, sample

NUMBERS = np.random.default_rng(0).normal(size=100).astype(np.float32)


def trial_of(spread: float) -> Trial:
    def made(factor: float) -> Pass:
        small = np.full(3, 1e-9 * factor, np.float32)  # of terms that cancel
        return Pass({0: NUMBERS * np.float32(factor)}, {"a": NUMBERS * np.float32(factor), "b": small})

    return Trial((), made(1.0), (made(1 + spread),))


@pytest.mark.parametrize(
    ("change", "spread", "far"),
    [
        (lambda a: a, 1e-6, ""),
        (lambda a: a * 1.005, 1e-6, ""),
        (lambda a: a * 1.02, 1e-6, "the gradient of 'a'"),
        (lambda a: a * 0, 1e-6, "the gradient of 'a'"),
        (lambda a: -a, 1e-6, "the gradient of 'a'"),
        (lambda a: a * 1.02, 5e-4, ""),  # 0.05 is allowed
        (lambda a: -a, 1e-2, ""),  # chaos
        (lambda a: np.where(np.arange(100) == 3, np.nan, a), 1e-6, "the gradient of 'a'"),
    ],
)
def test_a_gradient_that_is_farther_away_than_rounding_is_found(
    change: Callable[[Any], Any], spread: float, far: str
) -> None:
    trial = trial_of(spread)
    made = Pass(trial.wanted.answers, {**trial.wanted.gradients, "a": change(NUMBERS)})
    assert find_far(trial, made) == far


def test_what_rounding_leaves_of_terms_that_cancel_is_not_compared() -> None:
    trial = trial_of(0.0)
    assert find_far(trial, Pass(trial.wanted.answers, {"a": NUMBERS, "b": np.full(3, -3e-7, np.float32)})) == ""


def test_answers_are_compared_too() -> None:
    trial = trial_of(1e-6)
    assert find_far(trial, Pass({0: NUMBERS * 2}, trial.wanted.gradients)) == "its answer"


def test_numbers_that_are_none_in_torch_either_are_left_out() -> None:
    wanted = Pass({}, {"a": np.array([1.0, np.nan])})
    assert find_far(Trial((), wanted, ()), wanted) == ""
    assert find_far(Trial((), wanted, ()), Pass({}, {"a": np.array([1.0, 2.0])})) == "the gradient of 'a'"


def test_small_images_come_in_larger_batches() -> None:
    assert [count_images(shape) for shape in ((3, 64, 64), (3, 33, 65), (5,), (3, 224, 224), (10, 300))] == [
        *(2, 4, 8, 2, 2)
    ]


def test_whole_numbers_are_not_disturbed() -> None:
    places = np.arange(4)
    assert disturb(places, 0) is places
    assert 0 < np.abs(disturb(NUMBERS, 0) / NUMBERS - 1).max() < 1e-5
    assert 1e-5 < np.abs(disturb(NUMBERS, 0, shakes=True) / NUMBERS - 1).max() < 1e-3


def test_large_tensors_are_sampled() -> None:
    large = np.arange(2**18).reshape(2**9, 2**9)
    assert sample(large).tolist() == list(range(0, 2**18, 4))
    assert sample(NUMBERS).tolist() == NUMBERS.tolist() and sample(np.zeros((0, 3))).size == 0


def trial_of_buffer(spread: float = 0.0) -> Trial:
    """Of a buffer that one pass moves by a thousandth of its size, as a slow average."""
    before = np.linspace(1, 2, 100, dtype=np.float32)
    wanted = Pass({}, {}, {"a": before * np.float32(1.001)})
    return Trial((), wanted, (Pass({}, {}, {"a": wanted.buffers["a"] * np.float32(1 + spread)}),), (), {"a": before})


@pytest.mark.parametrize(
    ("made", "spread", "far"),
    [
        (1.001, 0.0, ""),
        (1.001005, 0.0, ""),  # half a hundredth of what has moved
        (1.00105, 0.0, "buffer 'a'"),
        (1.0, 0.0, "buffer 'a'"),  # it was not moved at all
        (1.00105, 1e-6, ""),  # 0.0001 is allowed
        (1.5, 1e-2, ""),  # chaos
        (np.nan, 0.0, "buffer 'a'"),
    ],
)
def test_a_buffer_has_to_move_as_in_torch(made: float, spread: float, far: str) -> None:
    trial = trial_of_buffer(spread)
    assert find_far(trial, Pass({}, {}, {"a": trial.before["a"] * np.float32(made)})) == far


def test_what_rounding_leaves_in_a_buffer_is_not_compared() -> None:
    nothing = np.zeros(3, np.float32)
    trial = Trial((), Pass({}, {}, {"a": nothing + np.float32(1e-8)}), (), (), {"a": nothing})
    made = Pass({}, {}, {"a": nothing - np.float32(3e-8)})
    assert find_far(trial, made) == "buffer 'a'" and find_far(trial, made, {"a": 1.0}) == ""


def test_whole_numbers_are_the_same_where_other_inputs_do_not_change_them() -> None:
    wanted, shaken, made = np.arange(50), np.arange(50), np.arange(50)
    shaken[3] += 1
    made[3] += 1
    trial = Trial((), Pass({0: wanted}, {}, {"a": wanted > 9}), (), (Pass({0: shaken}, {}, {"a": shaken > 9}),))
    assert find_far(trial, Pass({0: made}, {}, {"a": made > 9})) == ""
    made[4] += 1
    assert find_far(trial, Pass({0: made}, {}, {"a": made > 9})) == "its answer"
    assert find_far(trial, Pass({0: wanted}, {}, {"a": wanted > 8})) == "buffer 'a'"


def test_whole_numbers_that_hang_on_rounding_are_not_compared() -> None:
    wanted = np.arange(8)
    trial = Trial((), Pass({0: wanted}, {}), (), (Pass({0: wanted[::-1].copy()}, {}),))
    assert find_far(trial, Pass({0: wanted + 1}, {})) == ""
