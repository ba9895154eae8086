"""``kill -9`` of one of two processes: the other ends with a word, and a new launch goes on bit by bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support import killed_runs
from tests.support.made_once import make_once

MOMENTS = 20
EARLY = 5  # of them are while the processes start


@pytest.fixture(scope="module")
def undisturbed(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> ll.Result:
    def make(folder: Path) -> Path:
        ended = killed_runs.begin(folder / "undisturbed")
        assert ended.code == 0, ended.said[-2000:]
        return folder / "undisturbed" / "result.npz"

    return ll.Result.load(make_once(tmp_path_factory, "undisturbed-by-kills", make))


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_the_other_ends_with_a_word_and_a_new_launch_goes_on(
    undisturbed: ll.Result, tmp_path: Path, moment: int
) -> None:
    folder = tmp_path / "killed"
    killed = killed_runs.begin(folder, random.Random(moment), is_late=moment >= EARLY)
    assert killed.code != 0 and killed.seconds < 60, killed
    assert (folder / "result.npz").exists() is False
    if killed.had_begun:
        assert killed.said.count("another process than this one") == 1, killed.said
        assert killed.said.count("layered-lr resume run") == 1
    if (folder / "run" / "recipe.toml").exists():
        went_on = killed_runs.go_on(folder)
    else:  # there was no run yet
        went_on = killed_runs.begin(tmp_path / "again")
        folder = tmp_path / "again"
    assert went_on.code == 0, went_on.said[-2000:]
    found = ll.Result.load(folder / "result.npz")
    assert found.losses.tolist() == undisturbed.losses.tolist()
    for name, array in undisturbed.weights.items():
        np.testing.assert_array_equal(found.weights[name], array)
