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


def test_find_lr_writes_a_recipe_that_runs_as_it_was_searched(call: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        f"# mine\n[optimizer]\ntype = 'SGD'\nlr = 0.1\n[run]\nmodel = {tiny[3]!r}\ndata = 'data.npz'\nbatch_size = 8\n"
        "epochs = 1\ncheckpoints = 'run'\nprecision = {dtype = 'float64'}\n"
    )
    before = own.read_text()
    said = ("find-lr", "--recipe", "own.toml", "--trust", "--start", "1e-3", "--end", "100", "--steps", "40")
    answer = call(*said, "--recipe-out", "own.toml")
    assert answer.code == 2 and "a file that this library has not written" in answer.err and own.read_text() == before
    for _ in range(2):  # over its own file too
        assert call(*said, "--batch-size", "16", "--dtype", "float32", "--recipe-out", "found.toml").code == 0
    found, given = ll.load_recipe(tmp_path / "found.toml", trust=True), ll.load_recipe(own, trust=True)
    precision = {"dtype": "float32", "init_scale": 65536.0, "growth_interval": 2000}
    assert found.run == {**given.run, "batch_size": 16, "precision": precision}
    assert found.spec.optimizer.lr != given.spec.optimizer.lr
    assert call("run", "--recipe", "found.toml", "--trust", "--no-progress").code == 0 and (tmp_path / "run").is_dir()
    assert call(*said, "--recipe-out", "found.toml", "--recipe", "found.toml").code == 0


def test_no_command_writes_over_a_file_of_somebody_else(call: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib")
    assert call("run", *tiny, "--epochs", "1", "--checkpoint-dir", "first").code == 0
    search = ("find-lr", *tiny, "--start", "1e-3", "--end", "100", "--steps", "40", "--batch-size", "16")
    plan = ("plan", *tiny[:-1], "--epochs", "1")
    calls = [
        (("report", "first"), "report.html"),
        (("report", "first", "-o", "mine.html"), "mine.html"),
        *(((*search, "--plot", f"lr{ending}"), f"lr{ending}") for ending in (".png", ".svg", ".html")),
        *(((*plan, "--plot", f"plan{ending}"), f"plan{ending}") for ending in (".png", ".svg", ".html")),
        ((*plan, "--csv", "plan.csv"), "plan.csv"),
        ((*search, "--recipe-out", "found.toml"), "found.toml"),
    ]
    for words, name in calls:
        file = tmp_path / name
        file.write_text("step;loss\n<!DOCTYPE html>\n")
        answer = call(*words)
        assert answer.code == 2 and "that this library has not written" in answer.err, words
        assert file.read_text() == "step;loss\n<!DOCTYPE html>\n", words
        file.unlink()
        assert call(*words).code == 0 and call(*words).code == 0, words
    (tmp_path / "plan.csv").write_text("step,loss\n0,0.5\n")
    assert "there is a table with other columns than this plan's" in call(*plan, "--csv", "plan.csv").err
    assert (tmp_path / "plan.csv").read_text() == "step,loss\n0,0.5\n"


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
