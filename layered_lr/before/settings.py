"""What a search for a rate is told, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from layered_lr.arrays import Float64
from layered_lr.before.ramp import ramp_rates
from layered_lr.counts import read_whole_number, whole_number
from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scalars import read_number

_FEWEST_STEPS, _MOST_STEPS = 10, 100_000
_MOST_SEEDS = 1000
_LARGEST_SEED = 2**63


class SearchSettings(NamedTuple):
    """The settings of a search, as ``find_lr`` explains them.

    Args:
        rates: To try, ascending.
        group: Whose rate; None is all groups.
        phase: Of the run, from 1.
        seeds: Of the sweeps; None is one sweep as things are.
        smoothing: Of the losses.
        stop_factor: Of the lowest smoothed loss.
    """

    rates: Float64
    group: str | None
    phase: int
    seeds: tuple[int, ...] | None
    smoothing: float
    stop_factor: float


def check_settings(
    start: Any, end: Any, steps: Any, group: Any, phase: Any, seeds: Any, smoothing: Any, stop_factor: Any, first: int
) -> SearchSettings:
    """Check what ``find_lr`` was given; ``first`` is the run's own seed.

    Raises:
        SpecError: A value that cannot be.
    """
    low, high = read_number(start), read_number(end)
    for name, given, number in (("start", start, low), ("end", end, high)):
        if number is None or not 0 < number < math.inf:
            raise SpecError(f"find_lr({name}={shown(given)}): {name} must be a finite number > 0.")
    assert low is not None and high is not None  # said by the loop
    if not low < high:
        raise SpecError(f"find_lr(start={low:g}, end={high:g}): start must be below end.")
    if not high / low < math.inf:
        raise SpecError(f"find_lr(start={low:g}, end={high:g}): they are too far apart. Start higher.")
    count = whole_number("steps", steps, _FEWEST_STEPS)
    if count > _MOST_STEPS:
        raise SpecError(f"find_lr(steps={count}): at most {_MOST_STEPS:,} rates can be tried.")
    kept = read_number(smoothing)
    if kept is None or not 0 <= kept < 1:
        raise SpecError(f"find_lr(smoothing={shown(smoothing)}): must be a number >= 0 and below 1.")
    factor = read_number(stop_factor)
    if factor is None or not factor > 1:
        raise SpecError(f"find_lr(stop_factor={shown(stop_factor)}): must be a number > 1; infinity never stops.")
    if group is not None and not isinstance(group, str):
        raise SpecError(f"find_lr(group={shown(group)}): must be a group's name, or None for all groups together.")
    rates = ramp_rates(low, high, count)
    return SearchSettings(rates, group, whole_number("phase", phase, 1), _seeds(seeds, first), kept, factor)


def _seeds(given: Any, first: int) -> tuple[int, ...] | None:
    count = read_whole_number(given)
    if count is not None:
        if not 1 <= count <= _MOST_SEEDS:
            raise SpecError(f"find_lr(seeds={shown(given)}): how many seeds must be 1 to {_MOST_SEEDS}.")
        return None if count == 1 else tuple(range(first, first + count))
    listed = None if isinstance(given, str | bytes) or not isinstance(given, Iterable) else list(given)
    numbers = [read_whole_number(seed) for seed in listed or ()]
    good = [number for number in numbers if number is not None and 0 <= number < _LARGEST_SEED]
    if not good or len(good) != len(numbers) or len(set(good)) != len(good) or len(good) > _MOST_SEEDS:
        raise SpecError(
            f"find_lr(seeds={shown(given)}): must be how many seeds to try, or a list of different whole numbers >= 0."
        )
    return tuple(good)
