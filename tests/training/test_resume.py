"""A run that was stopped goes on bitwise as if it had not been, and whatever does not fit is said."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.state import read_state
from layered_lr.training.run_log import RunLog
from tests.conftest import open_backend
from tests.support import resuming
from tests.support.isolation import isolated, values_of
from tests.support.models import arrays
from tests.support.optimizer_cases import CASES
from tests.support.resuming import SPEC, assert_same, options
from tests.support.stopping import StopAfter, sigterm_after, stopped

STEPS = 9  # three epochs of three updates
PHASED = replace(
    SPEC,
    phases=[
        ll.Phase(4, trained="head", optimizer=ll.SGD(0.05, momentum=0.9)),
        ll.Phase(6, frozen="body"),
        ll.Phase(schedule=ll.LinearLR(total_iters=2), counts_from="phase"),
    ],
)


@pytest.mark.parametrize("spec", [SPEC, PHASED], ids=["plain", "phases"])
def test_a_run_that_is_stopped_three_times_goes_on_bitwise(
    backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: ll.Spec
) -> None:
    said = options(backend.name)
    whole = ll.run(spec, **said)
    stopped(monkeypatch, tmp_path / "run", spec, 2, **said)
    for after in (5, 8):
        with sigterm_after(monkeypatch, after):
            ll.resume(tmp_path / "run", data=said["data"], trust=True)
    result = ll.resume(tmp_path / "run", data=said["data"], trust=True)
    assert len(result.losses) == STEPS
    assert_same(result, whole)


@pytest.mark.parametrize("name", CASES)
def test_every_optimizer_goes_on_from_its_newest_checkpoint(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    spec = ll.Spec(ll.SGD(0.01), [ll.Group("*[dy].weight", optimizer=CASES[name])])
    said = options("torch-eager", max_steps=4)
    whole = ll.run(spec, **said)
    ll.run(spec, **{**said, "max_steps": 2, "checkpoints": ll.Checkpoints(tmp_path / "run", every=1)})
    result = ll.resume(tmp_path / "run", max_steps=4, data=said["data"], trust=True)
    assert "Going back" not in capsys.readouterr().err
    assert_same(result, whole)


def went_back(name: str) -> bool:
    """Whether a run of OneFlow with an optimizer goes on elsewhere than from its newest checkpoint."""
    import contextlib
    import io
    import tempfile

    import layered_lr as ll
    from tests.support.optimizer_cases import CASES
    from tests.support.resuming import assert_same, options

    spec = ll.Spec(ll.SGD(0.01), [ll.Group("*[dy].weight", optimizer=CASES[name])])
    said = options("oneflow-eager", max_steps=4)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as printed:
        whole = ll.run(spec, **said)
        ll.run(spec, **{**said, "max_steps": 2, "checkpoints": ll.Checkpoints(f"{folder}/run", every=1)})
        assert_same(ll.resume(f"{folder}/run", max_steps=4, data=said["data"], trust=True), whole)
    return "Going back" in printed.getvalue()


def test_every_optimizer_of_oneflow_goes_on_from_its_newest_checkpoint(oneflow: Any) -> None:
    names = ["SGD momentum", "AdamW amsgrad", "NAdam", "Adafactor", "Adafactor odd", "ASGD odd", "Rprop"]
    assert values_of(went_back, [(name,) for name in names]) == [False] * len(names)


def test_models_with_dropout_go_on_bitwise_on_torch(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = options("torch-eager", model=resuming.torch_net_with_dropout)
    whole = ll.run(SPEC, **said)
    stopped(monkeypatch, tmp_path / "run", SPEC, 4, **said)
    assert_same(ll.resume(tmp_path / "run", data=said["data"], trust=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize(  # on torch-compile it would take minutes
    "name", ["torch-eager", "oneflow-eager", pytest.param("oneflow-graph", marks=pytest.mark.exhaustive)]
)
def test_mobilenet_with_dropout_and_augmentation_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    open_backend(name)
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), np.arange(16) % 3) * 2
    said = {"backend": name, "data": data, "epochs": 2, "batch_size": 4, "augment": True, "progress": False}
    spec = ll.Spec(ll.SGD(0.01, momentum=0.9), [ll.Group("features", lr_scale=0.1)])
    run = tmp_path / "run"
    whole = ll.run(spec, **said, dropout=0.5, checkpoints=ll.Checkpoints(run, every=3, keep=3))
    made = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in made] == ["step-00000003", "step-00000006", "step-00000008"]
    for later in made[1:]:
        shutil.rmtree(later)
    assert_same(ll.resume(run, data=data, trust=True), whole)


@pytest.mark.parametrize(
    "there", [("torch-eager", "oneflow-eager"), ("torch-eager", "oneflow-graph"), ("oneflow-graph", "torch-eager")]
)
def test_a_run_goes_on_in_another_framework(
    torch: Any, oneflow: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: tuple[str, str]
) -> None:
    first, second = there
    whole = ll.run(SPEC, **options(first, precision="float64"))
    stopped(monkeypatch, tmp_path / "run", SPEC, 4, **options(first, precision="float64"))
    other = options(second)
    result = ll.resume(tmp_path / "run", backend=second, model=other["model"], data=other["data"], trust=True)
    np.testing.assert_allclose(result.losses, whole.losses, rtol=1e-7)  # OneFlow's losses have float32's exp in them
    for name, weight in whole.weights.items():
        np.testing.assert_allclose(result.weights[name], weight, rtol=1e-5, atol=1e-7, err_msg=name)


def test_what_the_folder_holds(torch: Any, tmp_path: Path) -> None:
    result = ll.run(SPEC, **options("torch-eager", checkpoints=ll.Checkpoints(tmp_path / "run", every=2, keep=2)))
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {"recipe.toml", "plan.json", "plan.txt", "metrics.csv", "events.jsonl", "report.txt"} <= names
    rows = list(csv.reader((run / "metrics.csv").read_text().splitlines()))
    assert rows[0] == ["step", "loss", "rate: head", "rate: norm", "rate: rest"]
    np.testing.assert_array_equal([float(row[1]) for row in rows[1:]], result.losses)
    np.testing.assert_array_equal([float(row[4]) for row in rows[1:]], result.rates["rest"])
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["accuracy"] for event in events if event["event"] == "epoch"] == result.accuracies.tolist()
    assert json.loads((run / "plan.json").read_text())["versions"]["torch"]
    steps = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert steps[-2:] == ["step-00000008", "step-00000009"]
    assert ll.load_recipe(run / "recipe.toml").spec == SPEC


def test_a_folder_that_holds_a_run_names_the_command_that_goes_on(torch: Any, tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    said = options("torch-eager", checkpoints=folder, epochs=1, log=[f"csv:{tmp_path / 'rows.csv'}"])
    ll.run(SPEC, **said)
    command = re.escape(f"layered-lr resume '{folder}' --trust")
    with pytest.raises(ll.CheckpointError, match=f"holds a run already. Go on with it \\({command}\\)"):
        ll.run(SPEC, **said)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ll.CheckpointError, match=f"Go on with it: {command}"):
        ll.Result.load(folder)


def test_two_runs_do_not_share_a_folder(torch: Any, tmp_path: Path) -> None:
    said = options("torch-eager", checkpoints=tmp_path / "run", epochs=1)
    ll.run(SPEC, **said)
    with pytest.raises(ll.CheckpointError, match="holds a run already"):
        ll.run(SPEC, **said)


def test_a_finished_run_can_be_made_longer(torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = replace(SPEC, schedule=ll.StepLR(4))
    whole = ll.run(spec, **options("torch-eager", epochs=4))
    ll.run(spec, **options("torch-eager", epochs=2, checkpoints=tmp_path / "run"))
    again = ll.resume(tmp_path / "run", data=arrays(), trust=True)
    assert len(again.losses) == 6
    capsys.readouterr()
    assert_same(ll.resume(tmp_path / "run", epochs=4, data=arrays(), trust=True), whole)
    assert "total_steps 6 -> 12" in capsys.readouterr().err


def test_another_schedule_for_what_is_left(torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ll.run(SPEC, **options("torch-eager", epochs=1, checkpoints=tmp_path / "run"))
    other = replace(SPEC, groups=[], schedule=ll.ConstantLR(factor=0.5, total_iters=100))
    result = ll.resume(tmp_path / "run", other, epochs=2, data=arrays(), trust=True)
    np.testing.assert_allclose(result.rates["rest"][3:], 0.005)
    assert "the plan is another one" in capsys.readouterr().err


def wider() -> Any:
    import torch

    model = resuming.torch_net()
    model.add_module("more", torch.nn.Linear(3, 3))
    return model


def test_a_changed_model_is_named_and_taken_with_strict_false(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ll.Spec(ll.SGD(0.01, momentum=0.9))
    first = ll.run(spec, **options("torch-eager", epochs=1, checkpoints=tmp_path / "run"))
    with pytest.raises(ll.CheckpointError, match=r"'more.weight' is not in it"):
        ll.resume(tmp_path / "run", epochs=2, data=arrays(), model=wider, trust=True)
    result = ll.resume(tmp_path / "run", epochs=2, data=arrays(), model=wider, strict=False, trust=True)
    assert "'more.weight' is not in it; it is initialised again." in capsys.readouterr().err
    assert result.weights["more.weight"].shape == (3, 3)
    np.testing.assert_array_equal(result.losses[:3], first.losses)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        pytest.param({"batch_size": 4}, ll.SpecError, "batch_size cannot be changed", id="batch"),
        pytest.param({"nonsense": 4}, ll.SpecError, "nonsense cannot be changed", id="unknown"),
        pytest.param({"max_steps": 1}, ll.SpecError, r"warmup_steps=3\) needs 3 steps", id="shorter"),
        pytest.param({"data": arrays(seed=9)}, ll.CheckpointError, "the data are not those", id="data"),
        pytest.param({"data": None}, ll.SpecError, "give it again", id="no-data"),
        pytest.param({"backend": "nonsense"}, ll.SpecError, "nonsense", id="backend"),
    ],
)
def test_wrong_input_of_resume(
    torch: Any, tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    ll.run(SPEC, **options("torch-eager", epochs=1, checkpoints=tmp_path / "run"))
    changes = {"data": arrays(), **changes}
    with pytest.raises(error, match=said):
        ll.resume(tmp_path / "run", **{name: value for name, value in changes.items() if value is not None}, trust=True)


@pytest.mark.parametrize("path", ["nowhere", 3])
def test_no_run_there(tmp_path: Path, path: Any) -> None:
    with pytest.raises(ll.LayeredLRError):
        ll.resume(tmp_path / path if isinstance(path, str) else path, trust=True)


def test_damage_is_said_and_the_checkpoint_before_it_taken(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = options("torch-eager")
    whole = ll.run(SPEC, **said)
    run = tmp_path / "run"
    ll.run(SPEC, **said, checkpoints=ll.Checkpoints(run, every=2))
    newest = run / "checkpoints" / "step-00000009" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert_same(ll.resume(run, data=said["data"], trust=True), whole)
    assert "step-00000009/weights.safetensors: differs from the file that was written" in capsys.readouterr().err


def test_a_full_disk_is_said_and_the_run_goes_on(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    whole = ll.run(SPEC, **options("torch-eager"))
    monkeypatch.setattr("layered_lr.state.state_files._fill", full)
    result = ll.run(SPEC, **options("torch-eager", checkpoints=tmp_path / "run"))
    assert_same(result, whole)
    assert capsys.readouterr().err.count("No space left on device") == 1


def run_until_killed(folder: str, backend: str, seconds: float) -> None:
    """In a process of its own, which kills itself at some moment after the run has made its folder."""
    import os
    import signal
    import threading
    import time
    from pathlib import Path

    import layered_lr as ll
    from tests.support.resuming import SPEC, options

    def kill() -> None:
        while not Path(folder, "recipe.toml").exists():
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    ll.run(SPEC, **options(backend, checkpoints=ll.Checkpoints(folder, every=1)))


@pytest.mark.slow
def test_kill_9_at_random_moments(backend: Any, tmp_path: Path) -> None:
    """Two of each backend, one of torch-compile; ``benchmarks/faults.py`` does thirty."""
    rng = np.random.default_rng(7)
    whole = ll.run(SPEC, **options(backend.name))
    for trial in range(1 if backend.name == "torch-compile" else 2):
        run = tmp_path / str(trial)
        killed = isolated(run_until_killed, str(run), backend.name, rng.uniform(0, 0.4))
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr  # 0: it had come to its end
        assert_same(ll.resume(run, data=arrays(), initial_weights=resuming.start(), trust=True), whole)


def test_a_changed_reactive_schedule_begins_anew(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = options("torch-eager", accumulate_steps=1)
    schedule = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=10.0)  # at every epoch
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head")], schedule)
    ll.run(spec, **said, checkpoints=tmp_path / "run")
    kept = ll.resume(tmp_path / "run", data=said["data"], epochs=4, trust=True)
    assert kept.rates["head"][[0, -1]].tolist() == [0.1, kept.rates["head"][14] * 0.5]
    changed = ll.resume(
        tmp_path / "run", replace(spec, optimizer=ll.SGD(0.003)), data=said["data"], epochs=5, trust=True
    )
    assert changed.rates["head"][20] == 0.003
    assert "group 'head': its schedule is another one now, and begins at 0.003." in capsys.readouterr().err


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
@pytest.mark.parametrize("ends", ["stopped", "shorter"])
def test_a_plateau_reads_an_epoch_once_where_a_run_ends_within_it(
    torch: Any, tmp_path: Path, ends: str, metric: str
) -> None:
    said = options("torch-eager", accumulate_steps=1, ema_decay=None, epochs=None)
    schedule = ll.ReduceLROnPlateau(patience=1, factor=0.5, threshold=10.0, metric=metric)  # at every second epoch
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head")], schedule)
    whole = ll.run(spec, **said, max_steps=24)
    stop = StopAfter(8, "half way through an epoch")
    early = {"max_steps": 8} if ends == "shorter" else {"max_steps": 24, "callbacks": [stop]}
    ll.run(spec, **said, **early, checkpoints=tmp_path / "run")
    assert_same(ll.resume(tmp_path / "run", data=said["data"], max_steps=24, trust=True), whole)
    assert 1 < len(set(whole.rates["head"])) < 5  # it was lowered, and not at each of the epochs


def test_norms_that_were_not_measured_before_a_change_are_nan(torch: Any, tmp_path: Path) -> None:
    said = options("torch-eager", epochs=1, accumulate_steps=1)
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head")])
    ll.run(spec, **said, checkpoints=tmp_path / "run")
    for epochs, policy in ((2, "skip"), (3, "stop")):
        result = ll.resume(tmp_path / "run", data=said["data"], epochs=epochs, divergence=policy, trust=True)
        assert np.flatnonzero(np.isfinite(result.grad_norms)).tolist() == [5, 6, 7, 8, 9]
        assert len(result.grad_norms) == len(result.losses) == 5 * epochs
    assert len(ll.resume(tmp_path / "run", data=said["data"], epochs=None, trust=True).losses) == 15


def test_a_run_with_phases_says_too_what_it_cannot_restore(
    oneflow: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def net() -> Any:
        return oneflow.nn.Sequential(*resuming.oneflow_net().children(), oneflow.nn.Dropout(0.1))

    said = options("oneflow-graph", model=net, initial_weights=None, epochs=None, max_steps=1)
    spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase(1, frozen="1"), ll.Phase()])
    ll.run(spec, **said, checkpoints=tmp_path / "run")
    assert "4 draws random numbers that this backend cannot restore" in capsys.readouterr().err


def test_checkpoints_of_another_run_or_step_are_found(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole and undamaged, but not this run's."""
    said = options("torch-eager")
    whole = ll.run(SPEC, **said, checkpoints=ll.Checkpoints(tmp_path / "one", every=3))
    ll.run(SPEC, **{**said, "seed": 1}, checkpoints=ll.Checkpoints(tmp_path / "other", every=3))
    mine, foreign = (tmp_path / name / "checkpoints" for name in ("one", "other"))
    shutil.rmtree(mine / "step-00000009")
    shutil.copytree(foreign / "step-00000009", mine / "step-00000009")
    shutil.copytree(mine / "step-00000006", mine / "step-00000008")
    assert_same(ll.resume(tmp_path / "one", data=said["data"], trust=True), whole)
    told = capsys.readouterr().err
    assert "step-00000009: its state is of another run. Going back to step-00000006" in told
    assert "step-00000008: its state is of another step, after 6 updates." in told
    assert_same(ll.resume(tmp_path / "one", data=said["data"], trust=True), whole)
    assert "Going back" not in capsys.readouterr().err


def test_first_weights_that_nobody_can_write_down_are_asked_for(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = options("torch-eager")
    whole = ll.run(SPEC, **said)
    with monkeypatch.context() as patched:
        patched.setattr(RunLog, "checkpoint", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            ll.run(SPEC, **said, checkpoints=tmp_path / "run")
    with pytest.raises(ll.SpecError, match=r"give them again: resume\(..., initial_weights="):
        ll.resume(tmp_path / "run", data=said["data"], trust=True)
    first = said["initial_weights"]
    assert_same(ll.resume(tmp_path / "run", data=said["data"], initial_weights=first, trust=True), whole)


def test_a_changed_run_has_its_folder_changed_too(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    ll.run(SPEC, **options("torch-eager", epochs=1, checkpoints=run))
    other = replace(SPEC, groups=[], schedule=ll.ConstantLR(factor=0.5, total_iters=100))
    result = ll.resume(run, other, epochs=2, data=arrays(), trust=True)
    assert ll.load_recipe(run / "recipe.toml").spec == other
    assert max(result.largest_rate_differences().values()) == 0, "each rate against the plan of its time"
    (run / "recipe.toml").write_text((run / "recipe.toml").read_text().replace("factor = 0.5", "factor = 0.25"))
    capsys.readouterr()
    again = ll.resume(run, epochs=3, data=arrays(), trust=True)
    assert "recipe.toml is not as it was written" in capsys.readouterr().err
    np.testing.assert_allclose(again.rates["rest"][-3:], 0.005)


def test_weights_open_without_this_library(torch: Any, oneflow: Any, tmp_path: Path) -> None:
    """As README says, in both frameworks."""
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_tensors

    result = ll.run(SPEC, **options("torch-eager", epochs=1, checkpoints=tmp_path / "run"))
    file = tmp_path / "run" / "checkpoints" / "step-00000003" / "weights.safetensors"
    model = resuming.torch_net()
    model.load_state_dict(load_tensors(file))
    other = resuming.oneflow_net()
    other.load_state_dict({name: oneflow.tensor(array) for name, array in load_file(file).items()})
    for name, array in result.weights.items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array)
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), array)


def test_a_limit_on_files_is_said_and_the_run_goes_on(torch: Any, tmp_path: Path) -> None:
    """A full disk as the system has it: each write beyond the limit fails."""
    script = """
import resource, sys
import layered_lr as ll
from tests.support.resuming import SPEC, options
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
print(len(ll.run(SPEC, **options("torch-eager", checkpoints=sys.argv[1])).losses))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(STEPS)]
    assert "The run goes on without." in done.stderr
    assert not list((tmp_path / "run" / "checkpoints").glob("*/state.json")), "one of them is half written"


LOOKS: list[float] = []


def accuracy_or_error(metrics: Mapping[str, float]) -> float:
    """A metric of a schedule, which fails at the second look at it."""
    LOOKS.append(metrics["accuracy"])
    if len(LOOKS) == 2:
        raise KeyError("f1")
    return metrics["accuracy"]


def test_a_schedule_that_cannot_read_its_metric_loses_no_epoch(torch: Any, tmp_path: Path) -> None:
    LOOKS[:] = []
    spec = ll.Spec(ll.SGD(0.05), schedule=ll.ReduceLROnPlateau("max", 0.5, patience=0, metric=accuracy_or_error))
    given: Any = {**options("torch-eager"), "early_stop": ll.EarlyStop("accuracy", patience=9)}
    said = r"accuracy_or_error'?\) of group 'rest' raised KeyError: 'f1'\. It was given loss, accuracy"
    with pytest.raises(ll.SpecError, match=said):
        ll.run(spec, **given, checkpoints=tmp_path / "run")
    again = ll.resume(tmp_path / "run", data=arrays(), trust=True)
    whole = ll.run(spec, **given)
    assert_same(again, whole)
    assert len(again.accuracies) == 3


@pytest.mark.parametrize("fails_at", [2, 3], ids=["within the run", "at its end"])
@pytest.mark.parametrize("ema", [None, 0.9], ids=["plain", "of the average"])
def test_a_metric_that_fails_loses_no_epoch(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails_at: int, ema: float | None
) -> None:
    """The run that goes on makes the evaluation that failed, and is the run in which none failed, bitwise."""
    calls: list[int] = []

    def share(outputs: Any, targets: Any) -> float:
        calls.append(1)
        if len(calls) == fails_at * (1 if ema is None else 2):
            raise ValueError("no such class")
        return float(np.mean(outputs.max(axis=1)))

    def good(outputs: Any, targets: Any) -> float:
        return float(np.mean(outputs.max(axis=1)))

    groups = [ll.Group("head", schedule=ll.ReduceLROnPlateau("max", 0.5, patience=0, metric="share"))]
    spec = ll.Spec(ll.SGD(0.05, momentum=0.9), groups)
    given = options("torch-eager", ema_decay=ema)
    stop = ll.EarlyStop("share", mode="max", patience=9)
    with pytest.raises(ll.SpecError, match="raised ValueError: no such class"):
        ll.run(spec, **given, metrics={"share": share}, early_stop=stop, checkpoints=tmp_path / "run")
    updates = 3 * fails_at
    assert f"the state after {updates} updates is kept. To go on: layered-lr resume" in capsys.readouterr().err
    assert read_state(tmp_path / "run" / "checkpoints" / f"step-{updates:08d}").step == updates
    again = ll.resume(tmp_path / "run", data=arrays(), metrics={"share": good}, trust=True)
    whole = ll.run(spec, **given, metrics={"share": good}, early_stop=stop, checkpoints=tmp_path / "whole")
    assert_same(again, whole)
    assert {name: rows.tolist() for name, rows in again.logged.items()} == {
        name: rows.tolist() for name, rows in whole.logged.items()
    }
    for name in ("metrics.csv", "logged.csv"):
        one, other = ((tmp_path / folder / name).read_text().splitlines() for folder in ("run", "whole"))
        assert sorted(one) == sorted(other)
    assert_same(ll.Result.load(tmp_path / "run"), ll.Result.load(tmp_path / "whole"))


def test_a_metric_and_a_callback_that_fail_lose_no_epoch(torch: Any, tmp_path: Path) -> None:
    class Breaks(ll.Callback):
        def on_update(self, event: Any) -> None:
            if event.run.step == 3:  # the last update of an epoch
                raise ValueError("no more disk")

    def bad(outputs: Any, targets: Any) -> float:
        raise ValueError("no such class")

    given = options("torch-eager")
    with pytest.raises(ll.CallbackError, match="The run ends after 3 updates"):
        ll.run(SPEC, **given, metrics={"share": bad}, callbacks=[Breaks()], checkpoints=tmp_path / "run")
    metrics = {"share": lambda outputs, targets: float(np.mean(outputs))}
    again = ll.resume(tmp_path / "run", data=arrays(), metrics=metrics, trust=True)
    assert_same(again, ll.run(SPEC, **given, metrics=metrics))


def test_a_dry_run_whose_metric_fails_keeps_nothing(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ll.SpecError, match="raised ZeroDivisionError"):
        ll.run(
            SPEC,
            **options("torch-eager"),
            metrics={"share": lambda outputs, targets: 1 / 0},
            checkpoints=tmp_path / "run",
            dry_run=True,
        )
    assert "is kept" not in capsys.readouterr().err and not list(tmp_path.iterdir())
