"""The commands before a run: find-lr, and what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll


def test_find_lr_prints_and_writes(call: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib")
    said = ("--start", "1e-3", "--end", "100", "--steps", "40", "--batch-size", "16")
    answer = call("find-lr", *tiny, *said, "--plot", "lr.html", "--recipe-out", "found.toml")
    assert answer.code == 0 and "suggested: lr" in answer.out and "written: lr.html, found.toml" in answer.out
    assert "<svg" in (tmp_path / "lr.html").read_text()
    answer = call("find-lr", *tiny, *said, "--json", "--plot", "lr.png")
    found = ll.RateSearch.from_dict(json.loads(answer.out))
    assert found.suggestion.spec == ll.Spec.from_toml(tmp_path / "found.toml")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_find_lr_refuses_before_it_trains(call: Any, tiny: tuple[str, ...]) -> None:
    for words, why in (
        (("--plot", "lr.gif"), "must end in"),
        (("--recipe-out", "missing/found.toml"), "folder that exists"),
        (("--start", "-1"), "start must be"),
        (("--group", "hed"), "no such group"),
        (("--steps", "2"), "steps must be"),
        (("--checkpoint-dir", "run"), "No such option"),
    ):
        answer = call("find-lr", *tiny, *words)
        assert answer.code == 2 and why in answer.err and len(answer.err.splitlines()) == 1


def test_find_lr_that_suggests_nothing_ends_with_1(call: Any, tiny: tuple[str, ...]) -> None:
    answer = call("find-lr", *tiny, "--start", "50", "--end", "500", "--steps", "12")
    assert answer.code == 1 and "start lower" in answer.out


def test_the_options_of_every_ready_recipe_are_taken() -> None:
    for name in ll.ready_recipes():
        recipe = ll.load_recipe(name)
        said = {key: value for key, value in recipe.run.items() if key != "data"}
        for tried in (ll.find_lr, ll.overfit):
            with pytest.raises(ll.DataError, match=r"none\.npz"):
                tried(recipe.spec, data="none.npz", **said)
