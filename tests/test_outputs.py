"""Nothing is written over that is not ours; the umask says who may read; what a kill left is cleared away."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.outputs import check_output, clear_unfinished, make_temporary, open_whole, write_whole
from layered_lr.strict_json import json_text, number_of
from tests.support.models import arrays
from tests.support.resuming import options

SPEC = ll.Spec(ll.SGD(0.1))


def obstacles(folder: Path) -> dict[str, Path]:
    """Things that are no plain file, with a file of the user behind the link."""
    (folder / "victim").write_text("mine")
    (folder / "link.npz").symlink_to(folder / "victim")
    (folder / "dangling.npz").symlink_to(folder / "nothing")
    os.mkfifo(folder / "fifo.npz")
    (folder / "folder.npz").mkdir()
    return {name: folder / f"{name}.npz" for name in ("link", "dangling", "fifo", "folder")} | {
        "device": Path("/dev/null")
    }


WRITERS: dict[str, Callable[[Path], Any]] = {
    "check_output": lambda path: check_output("save", path),
    "write_whole": lambda path: write_whole(path, [b"ours"]),
    "a plan's CSV": lambda path: ll.plan(SPEC, epochs=1).to_csv(path),
    "run(save=...)": lambda path: ll.run(SPEC, max_steps=1, save=path, progress=False),
    "save_state": lambda path: _save_state(path),
    "checkpoints": lambda path: ll.run(SPEC, **options("torch-eager"), checkpoints=path),
}


def _save_state(path: Path) -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    ll.save_state(path, model, *ll.compile(SPEC, model))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("obstacle", ["link", "dangling", "fifo", "device"])
def test_nothing_but_a_plain_file_is_written_over(torch: Any, tmp_path: Path, writer: str, obstacle: str) -> None:
    path = obstacles(tmp_path)[obstacle]
    before = os.lstat(path)
    with pytest.raises(ll.LayeredLRError):
        WRITERS[writer](path)
    assert os.lstat(path) == before or obstacle == "device"
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_a_result_takes_the_place_of_a_result_and_of_nothing_else(torch: Any, tmp_path: Path) -> None:
    mine = tmp_path / "data.npz"
    np.savez(mine, x_train=np.zeros(3))
    before = mine.read_bytes()
    said = {**options("torch-eager", epochs=1), "save": mine}
    with pytest.raises(ll.SpecError, match="a file that this library has not written"):
        ll.run(SPEC, **said)
    result = ll.run(SPEC, **{**said, "save": tmp_path / "r.npz"})
    result.save(tmp_path / "r.npz")
    with pytest.raises(ll.CheckpointError, match="a file that this library has not written"):
        result.save(mine)
    assert mine.read_bytes() == before
    assert ll.Result.load(tmp_path / "r.npz").losses.tolist() == result.losses.tolist()


@pytest.mark.parametrize("name", ["checkpoints", "plan.json", "metrics.csv", "report.txt", "recipe.toml", "lock"])
def test_a_project_folder_is_no_run_folder(torch: Any, tmp_path: Path, name: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    if name == "checkpoints":
        (project / name / "step-1000").mkdir(parents=True)
        (project / name / "step-1000" / "mine.pt").write_text("mine")
    else:
        (project / name).write_text("mine")
    before = {path: path.is_file() and path.read_text() for path in project.rglob("*")}
    with pytest.raises(ll.CheckpointError, match=f"is not the folder of a run, and has {name} in it"):
        ll.run(SPEC, **options("torch-eager"), checkpoints=project)
    assert {path: path.is_file() and path.read_text() for path in project.rglob("*")} == before


def test_what_else_is_in_a_runs_folder_is_left_alone(torch: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.md").write_text("mine")
    said = options("torch-eager", checkpoints=ll.Checkpoints(run, every=1, keep=1, keep_best=False))

    class Adds(ll.Callback):
        def on_checkpoint(self, event: Any) -> None:
            if event.run.step == 3:
                (run / "checkpoints" / "step-1000").mkdir()
                (run / "checkpoints" / "step-1000" / "mine").write_text("mine")
                (event.path / "note").write_text("mine")
                (run / "checkpoints" / "step-00000001").symlink_to(tmp_path)

    ll.run(SPEC, **said, callbacks=[Adds()])
    for name in ("notes.md", "checkpoints/step-1000/mine", "checkpoints/step-00000003/note"):
        assert (run / name).read_text() == "mine"
    assert tmp_path.exists() and (run / "checkpoints" / "step-00000001").is_symlink()
    assert (run / "checkpoints" / "step-00000009").is_dir() and not (run / "checkpoints" / "step-00000008").exists()


def test_a_state_takes_the_place_of_a_state_and_of_nothing_else(torch: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "weights.safetensors").write_text("mine")
    with pytest.raises(ll.CheckpointError, match="a folder with something other than a state"):
        _save_state(mine)
    assert (mine / "weights.safetensors").read_text() == "mine"
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(ll.CheckpointError, match="a symbolic link"):
        _save_state(tmp_path / "link")
    for _ in range(2):
        _save_state(tmp_path / "state")
    with pytest.raises(ll.SpecError, match="must be a path"):
        _save_state(3)  # type: ignore[arg-type]


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "of_files", "of_folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_the_umask_says_who_may_read(torch: Any, tmp_path: Path, mask: int, of_files: int, of_folders: int) -> None:
    with umask(mask):
        run = ll.Checkpoints(tmp_path / "run")
        ll.run(SPEC, **options("torch-eager", epochs=1, checkpoints=run, save=tmp_path / "r.npz"))
        _save_state(tmp_path / "state")
        ll.plan(SPEC, epochs=1).to_csv(tmp_path / "plan.csv")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (of_folders if path.is_dir() else of_files), path


KILLED = """
import os, signal, sys
from pathlib import Path
from layered_lr.outputs import make_temporary
made = [make_temporary(Path(sys.argv[1]), is_folder) for is_folder in (False, True)]
(made[1][0] / "weights.safetensors").write_text("half")
print("made", flush=True)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".layered_lr-notes").write_text("mine")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "dies"], check=False, stdout=subprocess.DEVNULL)
    dead = {path.name for path in tmp_path.glob(".layered_lr-*.tmp")}
    living = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), "lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert living.stdout and living.stdout.readline() == b"made\n"
    assert len(dead) == 2
    write_whole(tmp_path / "next", [b"begins"])
    left = {path.name for path in tmp_path.glob(".layered_lr-*")}
    assert not dead & left and len(left) == 3
    living.send_signal(signal.SIGKILL)
    living.communicate()
    clear_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".layered_lr-notes", "next"}


def test_a_run_clears_what_the_one_before_left_beside_its_result(torch: Any, tmp_path: Path) -> None:
    os.close(make_temporary(tmp_path)[1])
    with pytest.raises(ll.DataError):
        ll.run(SPEC, data=tmp_path / "none.npz", save=tmp_path / "r.npz", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), open_whole(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 300, "y" * 5000 + "/z", "", 3, None, b"bytes"], ids=lambda path: repr(path)[:9]
)
def test_a_path_that_cannot_be_is_refused_in_a_line(torch: Any, path: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: ll.resume(path),
        lambda: ll.load_recipe(path),
        lambda: ll.Result.load(path),
        lambda: _save_state(path),
        lambda: ll.load_state(path, torch.nn.Linear(2, 2), None),
        lambda: ll.Spec.from_toml(path if isinstance(path, bytes) or path in (3, None) else f"{path}.toml"),
        lambda: ll.Table.from_csv(path),
    ]
    if path is not None:
        calls += [
            lambda: ll.run(SPEC, save=path),
            lambda: ll.run(SPEC, checkpoints=path),
            lambda: ll.run(SPEC, initial_weights=path),
            lambda: ll.run(SPEC, data=path),
            lambda: ll.run(SPEC, data="cifar10", data_root=path),
            lambda: ll.plan(SPEC, epochs=1).to_csv(path),
        ]
    for call in calls:
        with pytest.raises(ll.LayeredLRError):
            call()


def test_the_home_folder_is_meant_by_its_sign(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "d.npz", **dict(zip(names, arrays(), strict=True)))
    said = {**options("torch-eager"), "initial_weights": None, "epochs": None, "max_steps": 2, "data": "~/d.npz"}
    first = ll.run(SPEC, **said, save="~/r.npz", checkpoints="~/runs/a")
    np.savez(tmp_path / "w.npz", **first.weights)
    assert len(ll.resume("~/runs/a", trust=True, max_steps=3).losses) == 3
    ll.run(SPEC, **{**said, "initial_weights": "~/w.npz"})
    _save_state(Path("~/state"))
    (tmp_path / "s.toml").write_text(SPEC.to_toml())
    (tmp_path / "t.csv").write_text("1\n2\n")
    assert ll.Spec.from_toml("~/s.toml") == ll.load_recipe("~/s.toml").spec == SPEC
    assert ll.Table("~/t.csv").values == (1.0, 2.0)
    ll.plan(SPEC, epochs=1).to_csv("~/p.csv")
    assert ll.Result.load("~/r.npz").losses.tolist() == first.losses.tolist()
    assert {"r.npz", "runs", "state", "p.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert list(Path.cwd().iterdir()) == []


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    text = '[optimizer]\r\ntype = "SGD"\r\nlr = 0.1\r\n'
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert ll.load_recipe(tmp_path / "r.toml").spec == ll.Spec.from_toml("\ufeff" + text) == SPEC


def test_no_two_columns_of_a_table_have_one_name() -> None:
    names = ["step", "epoch", "rate: step", "head"]
    spec = ll.Spec(ll.SGD(0.1), [ll.Group(f"{place}", name=name) for place, name in enumerate(names)])
    parameters = [(f"{place}.weight", (2, 2)) for place in range(4)]
    text = ll.resolve(spec, parameters, total_steps=2, steps_per_epoch=1).to_csv()
    header = next(csv.reader(io.StringIO(text)))
    assert header == ["step", "epoch", "rate: rate: step", "rate: epoch", "rate: step", "head"]
    assert len(set(header)) == len(header)
    alone = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("0", name="epoch")]), parameters[:1], total_steps=1).to_csv()
    assert alone.splitlines()[0] == "step,epoch", "without epochs there is only one"


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_json_is_strict(torch: Any, tmp_path: Path) -> None:
    spec = ll.Spec(ll.SGD(0.1), clip_grad_norm=float("inf"), schedule=ll.ReduceLROnPlateau())
    run = tmp_path / "run"
    ll.run(spec, **options("torch-eager", epochs=1, checkpoints=run, save=tmp_path / "r.npz"))
    files = [*run.rglob("*.json"), *run.rglob("*.jsonl")]
    assert {file.name for file in files} == {"plan.json", "layered_lr-run.json", "state.json", "events.jsonl"}
    for file in files:
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            strict(text)
    assert ll.plan_from_dict(json.loads((run / "plan.json").read_text())).spec == spec
    assert ll.Result.load(tmp_path / "r.npz").plan.spec == spec
    assert len(ll.resume(run, data=arrays(), trust=True, epochs=2).losses) == 6
    assert strict(json_text([float("inf"), {"a": (float("nan"), -np.inf, np.float64(0.5))}])) == [
        "inf",
        {"a": ["nan", "-inf", 0.5]},
    ]
    assert number_of("-inf") == -np.inf and number_of("head") == "head" and number_of(3) == 3
