"""Random trainings in two processes: the numbers of one process, or the same error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.fuzz import MINUTES, rounds
from tests.support.many_cases import options_of, results_in
from tests.support.random_cases import case_of_seed

QUICK, LONG = 12, 40
TOLERANCE = 1e-9  # of numbers of 1 in float64: adding up in another order, and what a dozen updates make of it


@pytest.mark.exhaustive
def test_a_case_in_two_processes_is_that_of_one(torch: Any) -> None:
    found = differences(range(QUICK))
    assert not found, found


@pytest.mark.skipif(not MINUTES, reason="only in the long mode: make fuzz")
def test_many_cases(torch: Any) -> None:
    for number in rounds():
        first = QUICK + number * LONG
        found = differences(range(first, first + LONG))
        assert not found, f"round {number}: {found}"


def differences(seeds: range) -> list[str]:
    """What differs between one process and each of two, in words, with what it was given."""
    (alone,), together = results_in(1, seeds), results_in(2, seeds)
    found = []
    for rank, results in enumerate(together):
        for seed, one, other in zip(seeds, alone, results, strict=True):
            if difference := compare(one, other):
                found.append(f"seed {seed}, process {rank}: {difference}; {options_of(seed)} {case_of_seed(seed)}")
    return found


def compare(one: Any, other: Any) -> str:
    """How two results of a case differ; empty where they do not."""
    if isinstance(one, str) or isinstance(other, str):
        names = [each if isinstance(each, str) else "a result" for each in (one, other)]
        return "" if names[0] == names[1] else f"{names[0]} alone, and {names[1]}"
    for name, array in one.items():
        if not np.allclose(array, other[name], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            return f"{name}: {array} alone, and {other[name]}"
    return ""


def test_a_difference_is_found() -> None:
    one = {"losses": np.array([1.0, np.nan])}
    assert compare(one, {"losses": np.array([1.0, np.nan])}) == ""
    assert compare(one, {"losses": np.array([1.0 + 1e-8, np.nan])}).startswith("losses")
    assert compare(one, "SpecError") == "a result alone, and SpecError"
    assert compare("SpecError", "SpecError") == ""
