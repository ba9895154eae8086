"""Sweeps: which lists are swept over, what each run trains with, what a second start does, and what is refused."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.spec.toml import read_toml
from layered_lr.watching.sweep_axes import find_axes, find_variants
from tests.support.models import arrays

SPEC = '[optimizer]\ntype = "SGD"\nlr = 0.1\n'
MANY = "[run]\n" + "".join(f"{name} = {list(range(1, 30))}\n" for name in ("seed", "epochs", "batch_size"))


def axes_of(text: str) -> dict[str, list[Any]]:
    return {".".join(map(str, axis.path)): list(axis.values) for axis in find_axes(read_toml(text))}


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ('[optimizer]\ntype = "SGD"\nlr = [0.1, 0.01]\n', {"optimizer.lr": [0.1, 0.01]}),
        (SPEC + "[run]\nseed = [0, 1, 2]\nepochs = 3\n", {"run.seed": [0, 1, 2]}),
        (
            '[optimizer]\ntype = ["SGD", "AdamW"]\nlr = [0.1, 0.01]\n',
            {"optimizer.type": ["SGD", "AdamW"], "optimizer.lr": [0.1, 0.01]},
        ),
        ('[optimizer]\ntype = "Adam"\nlr = 0.1\nbetas = [0.9, 0.99]\n', {}),
        (
            '[optimizer]\ntype = "Adam"\nlr = 0.1\nbetas = [[0.9, 0.99], [0.8, 0.99]]\n',
            {"optimizer.betas": [[0.9, 0.99], [0.8, 0.99]]},
        ),
        (
            SPEC + '[schedule]\ntype = "MultiStepLR"\nmilestones = [3, 6]\ngamma = [0.1, 0.5]\n',
            {"schedule.gamma": [0.1, 0.5]},
        ),
        (
            SPEC + '[schedule]\ntype = "SequentialLR"\nmilestones = [3]\n[[schedule.schedulers]]\ntype = "ConstantLR"\n'
            'factor = [0.1, 0.2]\n[[schedule.schedulers]]\ntype = "ExponentialLR"\ngamma = 0.9\n',
            {"schedule.schedulers.0.factor": [0.1, 0.2]},
        ),
        (
            SPEC + '[[groups]]\nmatch = "a.*"\nlr_scale = [1.0, 0.1]\n[[groups]]\nmatch = ["b.*", "c.*"]\n',
            {"groups.0.lr_scale": [1.0, 0.1]},
        ),
        (SPEC + '[[phases]]\nuntil = "1 epoch"\nfrozen = ["a.*", "b.*"]\n[[phases]]\n', {}),
        (SPEC.replace("0.1", "[0.1]"), {"optimizer.lr": [0.1]}),
        (
            '[[optimizer]]\ntype = "SGD"\nlr = 0.1\n[[optimizer]]\ntype = "Adam"\nlr = 0.01\n',
            {"optimizer": [{"type": "SGD", "lr": 0.1}, {"type": "Adam", "lr": 0.01}]},
        ),
        (
            SPEC + "[run]\nepochs = 3\n[run.divergence]\naction = ['stop', 'skip']\n",
            {"run.divergence.action": ["stop", "skip"]},
        ),
        ("clip_grad_norm = [1.0, 5.0]\n" + SPEC, {"clip_grad_norm": [1.0, 5.0]}),
        (
            SPEC + "[run]\ndata = ['d.npz', 'e.npz']\nseed = [0, 1]\n",
            {"run.data": ["d.npz", "e.npz"], "run.seed": [0, 1]},
        ),
        (SPEC + "[run.data]\nfolder = 'pets'\nsize = [16, 32]\n", {"run.data.size": [16, 32]}),
        (SPEC + "[run]\ninitial_weights = ['a.npz', 'b.npz']\n", {"run.initial_weights": ["a.npz", "b.npz"]}),
        (
            SPEC + "[run.initial_weights]\nsource = ['a.npz', 'b.npz']\nreset = ['1.*']\n",
            {"run.initial_weights.source": ["a.npz", "b.npz"]},
        ),
    ],
)  # fmt: skip
def test_a_list_is_swept_over_where_a_single_value_belongs(text: str, axes: dict[str, list[Any]]) -> None:
    assert axes_of(text) == axes


def test_every_value_of_each_list_meets_every_value_of_the_others() -> None:
    text = (
        '[optimizer]\ntype = "SGD"\nlr = [0.1, 0.01]\n[[groups]]\nmatch = "a.*"\nlr = [1, 2]\n[run]\nseed = [7, 8, 9]\n'
    )
    found = find_variants(read_toml(text))
    assert [tuple(each.settings.values()) for each in found][:4] == [
        ("0.1", "1", "7"), ("0.1", "1", "8"), ("0.1", "1", "9"), ("0.1", "2", "7"),
    ]  # fmt: skip
    assert len(found) == 12 == len({each.name for each in found})
    assert found[0].settings == {"optimizer.lr": "0.1", "1.lr": "1", "seed": "7"}
    assert found[-1].recipe["optimizer"]["lr"] == 0.01 and found[-1].recipe["groups"][0]["lr"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC, "no list of values where a single one belongs"),
        (SPEC.replace("0.1", "[0.1, 0.1]"), "has a value twice"),
        (SPEC.replace("0.1", "[0.1, -1]"), r"run lr=-1: SGD\(lr=-1\)"),
        (SPEC.replace("lr =", "lrr = [1, 2]\nlr ="), "lrr"),
        (SPEC.replace("0.1", "[0.1, 0.2]") + "[run]\nsave = 'r.npz'\n", "all runs would write there"),
        (SPEC.replace("0.1", "[0.1, 0.2]") + "[run]\nlog = ['csv:a.csv']\n", "all runs would write there"),
        (SPEC.replace("0.1", "[0.1, 0.2]") + "[run]\nepoch = 3\n", "'epoch'"),
        ("run = 3\n" + SPEC, "run must be a table"),
        (SPEC + MANY, "24,389 runs; 10,000 are the most"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_swept_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ll.SpecError, match=message) as caught:
        ll.sweep(tmp_path / "r.toml", tmp_path / "into")
    assert "\n" not in str(caught.value) and not (tmp_path / "into").exists()


MODULE = """
import oneflow

def build():
    oneflow.manual_seed(0)
    return oneflow.nn.Sequential(oneflow.nn.Flatten(1), oneflow.nn.Linear(12, 3))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oneflow: Any) -> Path:
    """Two rates by one seed of a tiny model, in the current folder; OneFlow's, whose eager mode starts fastest."""
    monkeypatch.chdir(tmp_path)
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "data.npz", **dict(zip(names, arrays(), strict=True)))  # type: ignore[arg-type]
    (tmp_path / "tiny_net.py").write_text(MODULE)
    run = '[run]\nbackend = "oneflow-eager"\ndevice = "cpu"\nmodel = "tiny_net:build"\ndata = "data.npz"\nepochs = 2\n'
    run += "batch_size = 8\n"
    path = tmp_path / "r.toml"
    path.write_text(SPEC.replace("lr = 0.1", "lr = [0.1, 0.001]") + run)
    return path


def test_a_sweep_is_made_and_a_second_start_makes_what_is_missing(
    recipe: Path, tmp_path: Path, call: Any, refused: Any
) -> None:
    into = tmp_path / "into"
    done = ll.sweep(recipe, into, jobs=2, trust=True)
    assert done.ok and [run.name for run in done.runs] == ["01-lr=0.1", "02-lr=0.001"]
    assert done.settings == ({"lr": "0.1"}, {"lr": "0.001"})
    assert done.best is not None and f"{into / done.best.name}" in str(done)
    for run, lr in zip(done.runs, (0.1, 0.001), strict=True):
        with (into / run.name / "metrics.csv").open(newline="") as file:
            assert {float(row["rate: rest"]) for row in csv.DictReader(file)} == {float(np.float32(lr))}
    shutil.rmtree(into / done.runs[1].name)
    first = (into / done.runs[0].name / "events.jsonl").read_bytes()
    answer = call("sweep", str(recipe), "--into", str(into), "--trust", "--json")
    assert answer.code == 0 and [row["state"] for row in json.loads(answer.out)] == ["finished", "finished"]
    assert "1 of 2 runs are finished already" in answer.err
    assert (into / done.runs[0].name / "events.jsonl").read_bytes() == first, "it was not made again"
    recipe.write_text(recipe.read_text().replace("0.001", "0.002"))
    refused(call("sweep", str(recipe), "--into", str(into)), "holds the sweep of another recipe")


def test_the_best_run_is_that_of_the_highest_accuracy_or_else_of_the_lowest_test_loss() -> None:
    def sweep_of(**measured: Any) -> ll.Sweep:
        """Three runs, of which the middle one is the best."""
        runs = []
        for number in range(3):
            run = ll.RunSummary(str(number), "finished", "", "", 5, 5, None, None, None, "", "")
            runs.append(replace(run, **{name: numbers[number] for name, numbers in measured.items()}))
        return ll.Sweep(Path("into"), tuple(runs), ({"lr": "1"}, {"lr": "2"}, {"lr": "3"}))

    accuracies: dict[str, Any] = {"best_accuracy": (0.1, 0.3, 0.3)}
    losses: dict[str, Any] = {"best_test_loss": (2.0, 0.5, None)}
    for measured, words in (
        (accuracies, "best accuracy 0.3000: into/1"),
        (losses, "best test loss 0.5000: into/1"),
        ({**accuracies, "best_test_loss": (0.1, None, None)}, "best accuracy 0.3000: into/1"),
        ({"best_accuracy": (None, 0.0, None)}, "best accuracy 0.0000: into/1"),
    ):
        found = sweep_of(**measured)
        assert found.best == found.runs[1] and str(found).splitlines()[-1] == words
    assert sweep_of().best is None and "best" not in str(sweep_of())


def test_a_run_that_fails_is_told_and_the_others_go_on(recipe: Path, tmp_path: Path, call: Any) -> None:
    """Without trust, the model may not be imported: no run can begin."""
    answer = call("sweep", str(recipe), "--into", str(tmp_path / "into"))
    assert answer.code == 1 and answer.out.count("missing") == 2
    assert "a file names code to import" in answer.out and "exit code 2, see" in answer.err


def test_a_sweep_that_is_stopped_goes_on_from_checkpoints(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("[0.1, 0.001]", "[0.1]").replace("epochs = 2", "epochs = 300"))
    into = tmp_path / "into"
    words = [sys.executable, "-m", "layered_lr", "sweep", "r.toml", "--into", str(into), "--trust"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    events = into / "01-lr=0.1" / "events.jsonl"
    try:
        while process.poll() is None and not (events.exists() and events.read_bytes().count(b"epoch") > 3):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, process.stderr.read()  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()
    (run,) = ll.list_runs(into)
    assert (run.state, run.note) == ("stopped", "stopped by SIGTERM") and 0 < run.updates < 1500
    checkpoints = [path.name for path in (into / "01-lr=0.1" / "checkpoints").iterdir()]
    assert f"step-{run.updates:08d}" in checkpoints, "it was left with a checkpoint of its last update"
    assert ll.sweep(recipe, into, trust=True).ok
    assert f'"event": "resumed", "step": {run.updates}' in events.read_text()


@pytest.mark.parametrize("content", ["sweep.json", "diary.txt"])
def test_a_folder_of_somebody_else_is_refused(recipe: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / content).write_text("mine")
    with pytest.raises(ll.CheckpointError, match=r"not the folder of a sweep|is damaged"):
        ll.sweep(recipe, tmp_path / "into")
    assert (tmp_path / "into" / content).read_text() == "mine"


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", True, 10**9])
def test_wrong_jobs_are_refused(recipe: Path, tmp_path: Path, jobs: Any) -> None:
    with pytest.raises(ll.SpecError, match="jobs"):
        ll.sweep(recipe, tmp_path / "into", jobs)
