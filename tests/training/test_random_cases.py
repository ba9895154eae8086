"""Random trainings on each backend, which between them have all parts of a case, beside the same ones by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from layered_lr.registry import TABLE
from tests.conftest import open_backend
from tests.support.isolation import values_of
from tests.support.random_cases import case_of_seed, kinds_of, parts_in, seeds_of_all_parts

RUNS = range(100)
SEEDS = seeds_of_all_parts(RUNS)
LOOPS = [*RUNS[:20]]  # a loop of ones own can be told what five of them need
Jobs = dict[str, list[tuple[str, list[int]]]]
JOBS: Jobs = {
    "torch-eager": [("run", [*RUNS]), ("resume", SEEDS[:6]), ("loop", LOOPS)],
    "torch-compile": [("run", SEEDS[:6])],  # seconds for each
    "oneflow-eager": [("run", [*RUNS]), ("loop", LOOPS)],
    "oneflow-graph": [("run", SEEDS), ("graph", LOOPS[:13])],  # half a second for each graph; `make fuzz` makes more
}
MORE_JOBS: Jobs = {
    "torch-eager": [("resume", LOOPS), ("loop", [*RUNS])],
    "torch-compile": [("run", [*RUNS])],
    "oneflow-eager": [("loop", [*RUNS])],
    "oneflow-graph": [("run", [*RUNS]), ("graph", [*RUNS])],
}


def judged(backend: str, way: str, seeds: list[int]) -> list[list[object]]:
    """In a process of its own: the seeds of cases, and what was found."""
    import gc
    import warnings

    from layered_lr.backend.loading import load_backend
    from tests.support.judged_cases import judge_case, judge_seeds
    from tests.support.random_cases import case_of_seed

    warnings.simplefilter("ignore")
    load_backend(backend, "cpu")
    judge_case(case_of_seed(0), "run", "torch-eager")  # imports all of torch that the loop by hand needs
    gc.collect()
    gc.freeze()  # each graph begins with a collection of all that is not frozen
    return [[seed, lines] for seed, lines in judge_seeds(backend, way, seeds).items()]


def count_cases(seeds: list[int]) -> int:
    """How many of these cases this release of torch has the optimizers for: all of them, from 2.9 on."""
    from tests.support.judged_cases import can_be_made_by_hand

    return sum(can_be_made_by_hand(case_of_seed(seed)) for seed in seeds)


@pytest.mark.slow
@pytest.mark.parametrize("backend_name", JOBS)
def test_they_are_those_by_hand(backend_name: str) -> None:
    check_jobs(backend_name, JOBS[backend_name])


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend_name", MORE_JOBS)
def test_many_more_are_those_by_hand(backend_name: str) -> None:
    check_jobs(backend_name, MORE_JOBS[backend_name])


def check_jobs(backend_name: str, jobs: list[tuple[str, list[int]]]) -> None:
    open_backend(backend_name)
    answers = values_of(judged, [[backend_name, *job] for job in jobs])
    wrong = {
        f"{way} {seed}": lines
        for (way, _), found in zip(jobs, answers, strict=True)
        for seed, lines in found
        if lines and not lines[0].startswith("refused")
    }
    assert not wrong
    for (way, seeds), found in zip(jobs, answers, strict=True):
        refused = [lines[0] for _, lines in found if lines]
        assert all("phase" in line or "momentum" in line for line in refused), refused
        if way == "run":
            assert len(found) == count_cases(seeds) and len(refused) <= len(found) // 20, refused
        assert len(found) > len(refused), refused


def test_the_cases_have_everything_in_them() -> None:
    cases = [case_of_seed(seed) for seed in RUNS]
    optimizers = Counter(case["spec"]["optimizer"]["type"] for case in cases)
    assert len(optimizers) == 15 and min(optimizers.values()) >= 2
    own = Counter(
        group["optimizer"]["type"] for case in cases for group in case["spec"]["groups"] if "optimizer" in group
    )
    assert own["Muon"] >= 5 and len(own) >= 8
    assert any("phases" in case["spec"] and "Muon" in kinds_of(case) for case in cases)
    tables = [
        each["schedule"] for case in cases for each in (case["spec"], *case["spec"]["groups"]) if "schedule" in each
    ]
    kinds = {table["type"] for table in tables}
    assert kinds >= {"SequentialLR", "ChainedScheduler", "Warmup", "WSD", "OneCycleLR", "ReduceLROnPlateau", "Table"}
    said = set(itertools.chain.from_iterable([*case["spec"], *(name for name in case if case[name])] for case in cases))
    assert said >= {
        "phases",
        "clip_grad_norm",
        "clip_grad_value",
        "clip_per_group",
        "no_weight_decay",
        "ema_decay",
        "norm",
    }
    phases = [phase for case in cases for phase in case["spec"].get("phases", ())]
    in_phases = set(itertools.chain.from_iterable(phases))
    assert in_phases >= {"frozen", "trained", "optimizer", "schedule", "counts_from", "carry", "momentum_warmup"}
    assert set().union(*map(parts_in, cases)) == set().union(*(parts_in(case_of_seed(seed)) for seed in SEEDS))
    assert set(JOBS) == set(MORE_JOBS) == set(TABLE)
