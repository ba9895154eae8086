"""Every file of a run's folder is damaged at random: the run goes on bitwise, or ends with an error of this library."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import layered_lr as ll
from layered_lr.state.state_files import STATE, TRAINING, WEIGHTS
from tests.support import hostile
from tests.support.models import arrays
from tests.support.resuming import SPEC, assert_same, options, start


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ll.Result]:
    """A run of 9 updates with checkpoints after 6 and 9, copied when it had made 7, and its result."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("made")
    (folder / "victim.txt").write_text("mine")

    class Copies(ll.Callback):
        def on_begin(self, event: Any) -> None:
            event.run.log(begun=1.0)

        def on_checkpoint(self, event: Any) -> None:
            if event.run.step == 7:
                shutil.copytree(event.run.folder, folder / "run")

    checkpoints = ll.Checkpoints(folder / "whole", every=1, keep=2)
    whole = ll.run(SPEC, **options("torch-eager", callbacks=[Copies()], checkpoints=checkpoints))
    return folder, whole


def go_on(run: Path, **other: Any) -> ll.Result:
    return ll.resume(run, data=arrays(), initial_weights=start(), trust=True, **other)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_whatever_is_damaged_the_run_goes_on_bitwise_or_says_why_not(
    made: tuple[Path, ll.Result], seed: int, times: int
) -> None:
    folder, whole = made
    draw, run = random.Random(seed), folder / "damaged"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "run", run)
    for _ in range(times):
        plain = [path for path in run.rglob("*") if not path.is_symlink()]
        place = draw.choice(sorted(path for path in plain if path.is_file() or path.is_dir()))
        draw.choice(hostile.OF_FOLDERS if place.is_dir() else hostile.OF_FILES)(place, draw)
    with contextlib.suppress(ll.LayeredLRError):
        assert_same(go_on(run), whole)
    assert (folder / "victim.txt").read_text() == "mine"


def damaged(made: tuple[Path, ll.Result], tmp_path: Path) -> Path:
    shutil.copytree(made[0] / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", [hostile.flip, hostile.truncate, hostile.empty, hostile.remove, hostile.fifo])
@pytest.mark.parametrize("name", ["metrics.csv", "plan.json", "plan.txt", "recipe.toml", "layered_lr-run.json"])
def test_what_describes_a_run_never_blocks_it(
    made: tuple[Path, ll.Result], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: hostile.Damage
) -> None:
    run = damaged(made, tmp_path)
    damage(run / name, random.Random(1))
    if (name, damage) == ("layered_lr-run.json", hostile.fifo):
        with pytest.raises(ll.CheckpointError, match="there is a FIFO, which is never written over"):
            go_on(run)
        return
    assert_same(go_on(run), made[1])
    told = capsys.readouterr().err
    assert f"{name}: is not as the run wrote it" in told or name in told or name == "layered_lr-run.json", told
    if name == "metrics.csv" and damage is not hostile.fifo:
        assert (run / name).read_bytes() == (made[0] / "whole" / name).read_bytes(), "it has no hole"


def forged(state: Path, file: str, change: Callable[[Any], None]) -> None:
    """Change what a checkpoint holds, with digests that are right again."""
    table = json.loads((state / STATE).read_text())
    del table["digest"]
    if file == STATE:
        change(table)
    else:
        held = dict(load_file(state / file))
        change(held)
        save_file(held, state / file)
    table["sha256"] = {name: hashlib.sha256((state / name).read_bytes()).hexdigest() for name in (WEIGHTS, TRAINING)}
    table["digest"] = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    (state / STATE).write_text(json.dumps(table))


FORGED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "losses of two axes": (TRAINING, lambda held: held.update({"history:losses": np.zeros((7, 1))})),
    "no rates": (TRAINING, lambda held: held.pop("history:rates")),
    "rates of one axis": (TRAINING, lambda held: held.update({"history:rates": np.zeros(7)})),
    "too few losses": (TRAINING, lambda held: held.update({"history:losses": np.zeros(3)})),
    "logged numbers of another shape": (TRAINING, lambda held: held.update({"history:logged/begun": np.zeros(3)})),
    "garbage as random state": (TRAINING, lambda held: held.update({"random:torch-cpu": np.zeros(7, np.uint8)})),
    "random state of floats": (TRAINING, lambda held: held.update({"random:torch-cpu": np.zeros(5056)})),
    "a weight of another shape": (WEIGHTS, lambda held: held.update({"head.bias": np.zeros(9, np.float32)})),
    "a slot of another shape": (TRAINING, lambda held: held.update({"slot:exp_avg:head.bias": np.zeros(9)})),
    "a counter that is NaN": (TRAINING, lambda held: held.update({"slot:step:head.bias": np.array(np.nan)})),
    "10^19 epochs": (STATE, lambda table: table["about"]["options"].update(epochs=10**19)),
    "options that are none": (STATE, lambda table: table["about"].update(options=[])),
    "a plan that is none": (STATE, lambda table: table["about"]["plan"].update(spec={"optimizer": 3})),
    "a reaction without numbers": (STATE, lambda table: table["reactions"].update(head={})),
    "a reaction of NaN": (STATE, lambda table: table["reactions"]["head"].update(bad="nan")),
    "events that are numbers": (STATE, lambda table: table["about"].update(events=[1])),
    "a factor below 0": (STATE, lambda table: table["about"].update(rate_factor=-1)),
    "a huge metric": (STATE, lambda table: table.update(metric=10**400)),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_checkpoint_is_named_and_the_one_before_it_taken(
    made: tuple[Path, ll.Result], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    run = damaged(made, tmp_path)
    newest = max((run / "checkpoints").iterdir())
    forged(newest, *FORGED[what])
    result = go_on(run)
    assert_same(result, made[1])
    told = capsys.readouterr().err
    if what != "10^19 epochs":  # the mark of the folder says the right number
        assert newest.name in told and "Going back to step-00000006" in told, told


@pytest.mark.parametrize("name", [WEIGHTS, TRAINING, STATE])
@pytest.mark.parametrize("damage", [hostile.fifo, hostile.device, hostile.extend, hostile.folder])
def test_an_endless_file_in_a_checkpoint_ends_nothing(
    made: tuple[Path, ll.Result],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: hostile.Damage,
) -> None:
    run = damaged(made, tmp_path)
    newest = max((run / "checkpoints").iterdir())
    damage(newest / name, random.Random(0))
    assert_same(go_on(run), made[1])
    assert f"{newest.name}/{name}" in capsys.readouterr().err
