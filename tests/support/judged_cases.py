"""What a case that the library has made differs in from the same case made by hand, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import layered_lr as ll
from tests.support.hand_training import Training, train_by_hand
from tests.support.made_cases import WAYS, ways_of
from tests.support.old_torch import is_older
from tests.support.random_cases import Case, case_of_seed, kinds_of

FLOAT64 = 1e-11  # of the size of the numbers: some thousand times float64's rounding, for a dozen updates
# Times what float32 itself, and noise of its size on the gradients, move the loop by hand: an update that divides by a
# tiny gradient makes much of its last bit, and OneFlow rounds hyperparameters to float32 too.
ROUNDING = 30
# Muon adds in float32 and rounds to bfloat16 in any dtype. OneFlow adds in another order than torch, so that at times a
# last bit of bfloat16 differs, of a number up to 1, times a rate of at most 0.1. On torch all is exact.
MUON = 2.0**-8 * 0.1
FLOAT32 = 2e-6  # of the size of the numbers, some ten times float32's rounding


def judge(case: Case, made: Training, backend: str) -> list[str]:
    """Say what a training differs in from the loop by hand; nothing where it is right.

    Args:
        case: Which one.
        made: By the library.
        backend: Which one made it.
    """
    truth = train_by_hand(case, torch.float64, rounds_norm=backend.startswith("oneflow"))
    rough = [truth]
    limits = Limits(case, backend)
    if not limits.is_exact:
        noisy = [train_by_hand(case, torch.float64, disturbance=seed) for seed in range(3)]
        rough = [*noisy, *([train_by_hand(case, torch.float32)] if case["dtype"] == "float32" else [])]
    found = limits.compare("losses", made.losses, truth.losses, [each.losses for each in rough])
    if made.rates is not None:
        found += limits.compare_all("rates", made.rates, truth.rates, [each.rates for each in rough])
    if made.norms is not None and any(np.isfinite(norms).any() for norms in made.norms.values()):
        found += limits.compare_all("norms", made.norms, truth.norms, [each.norms for each in rough])
    if made.accuracies is not None and limits.is_exact:  # else an image on the border may fall to either side
        found += limits.compare("accuracies", made.accuracies, truth.accuracies, [each.accuracies for each in rough])
    found += limits.compare_all("weights", made.weights, truth.weights, [each.weights for each in rough])
    if made.average is not None:
        found += limits.compare_all("average", made.average, truth.average, [each.average for each in rough])
    return found


class Limits:
    """How far a training may be from the one by hand.

    Args:
        case: Its dtype says it, and whether it has Muon.
        backend: What made the training.
    """

    def __init__(self, case: Case, backend: str) -> None:
        adds_otherwise = "Muon" in kinds_of(case) and backend.startswith("oneflow")
        self.is_exact = case["dtype"] == "float64" and not adds_otherwise
        self.share = FLOAT64 if self.is_exact else MUON if adds_otherwise else FLOAT32

    def compare_all(
        self,
        what: str,
        made: Mapping[str, Any],
        truth: Mapping[str, Any] | None,
        rough: Sequence[Mapping[str, Any] | None],
    ) -> list[str]:
        """Say which of several arrays are too far off, or missing."""
        assert truth is not None
        if made.keys() != truth.keys():
            return [f"{what}: {sorted(made)} instead of {sorted(truth)}"]
        found = []
        for name, right in truth.items():
            near = [each[name] for each in rough if each is not None]
            found += self.compare(f"{what} {name}", made[name], right, near)
        return found

    def compare(self, what: str, made: Any, truth: Any, rough: Sequence[Any]) -> list[str]:
        """Say whether an array is too far off, and where first."""
        mine, right = np.asarray(made, dtype=np.float64), np.asarray(truth, dtype=np.float64)
        if mine.shape != right.shape:
            return [f"{what}: {mine.shape} numbers instead of {right.shape}"]
        apart = np.abs(mine - right)
        moved = max(float(np.max(np.abs(np.asarray(near) - right), initial=0)) for near in rough)
        allowed = self.share * max(1.0, float(np.max(np.abs(right), initial=0))) + ROUNDING * moved
        if np.all(apart <= allowed):
            return []
        place = tuple(int(index) for index in np.argwhere(~(apart <= allowed))[0])
        return [f"{what}{list(place)}: {mine[place]!r} instead of {right[place]!r}, allowed {allowed:.2g}"]


def judge_seeds(backend: str, way: str, seeds: Iterable[int]) -> dict[int, list[str]]:
    """What is found at each case that a backend makes in one way; where it refuses, the one line begins with that word.

    Args:
        backend: Which one.
        way: A name in ``made_cases.WAYS``; cases that cannot be made so are left out.
        seeds: Of the cases.
    """
    found = {}
    for seed in seeds:
        case = case_of_seed(seed)
        if way in ways_of(case, backend) and can_be_made_by_hand(case):
            found[seed] = judge_case(case, way, backend)
    return found


def can_be_made_by_hand(case: Case) -> bool:
    """Whether this release of torch has the optimizers of a case, and what is asked of them."""
    kinds = kinds_of(case)
    if "Adam" in kinds and is_older((2, 7)) and "'decoupled_weight_decay': True" in str(case):
        return False
    return all(hasattr(torch.optim, kind) for kind in kinds - {"LAMB", "LARS", "Lion"})


def judge_case(case: Case, way: str, backend: str) -> list[str]:
    """What is found at a case; where the library refuses it, a line that begins with that word."""
    try:
        made = WAYS[way](case, backend)
    except ll.LayeredLRError as error:
        return [f"refused: {type(error).__name__}: {error}"]
    return judge(case, made, backend)
