"""A run that stops within an epoch goes on in any number of processes, and on OneFlow, with the images of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import going_on
from tests.support.isolation import value_of
from tests.support.many_runs import run_in

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(900)]
TOLERANCE = 1e-11  # of losses of 1 in float64, after 11 updates in which processes add up in another order


@pytest.fixture(scope="module")
def begun(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The first updates of all cases, made by one process and by two."""
    folders = {count: tmp_path_factory.mktemp(f"begun-{count}") for count in (1, 2)}
    going_on.begin_all(str(folders[1]))
    run_in(2, going_on.BEGIN, folder=str(folders[2]))
    return folders


@pytest.fixture(scope="module")
def whole(torch: Any) -> dict[str, Any]:
    return {name: going_on.train(name, going_on.WHOLE) for name in going_on.CASES}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (1, 4)])
def test_in_another_number_of_processes(
    begun: dict[int, Path], whole: dict[str, Any], tmp_path: Path, before: int, after: int
) -> None:
    folder = shutil.copytree(begun[before], tmp_path / "run")
    if after == 1:
        answers = [going_on.go_on_all(str(folder))]
    else:
        answers = [found[going_on.GO_ON] for found in run_in(after, going_on.GO_ON, folder=str(folder))]
    for found in answers:
        for name in going_on.CASES:
            assert going_on.farthest(whole[name], found[name]) < TOLERANCE, name


def test_alone_on_the_other_framework(
    begun: dict[int, Path], whole: dict[str, Any], tmp_path: Path, oneflow: Any
) -> None:
    folder = shutil.copytree(begun[2], tmp_path / "run")
    found = value_of(go_on_with_oneflow, str(folder))
    for name in going_on.CASES:
        assert np.abs(np.array(found[name]) - whole[name]["losses"]).max() < TOLERANCE, name


def go_on_with_oneflow(folder: str) -> dict[str, list[float]]:
    """The losses of each case; in a process of its own."""
    from tests.support.going_on import go_on_all_on_oneflow

    return {name: numbers["losses"].tolist() for name, numbers in go_on_all_on_oneflow(folder).items()}
