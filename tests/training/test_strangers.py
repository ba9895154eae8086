"""What somebody else has written: reading it imports and writes nothing, going on with it takes a word."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.errors import CheckpointError
from layered_lr.parity.processes import _PROGRAM, _search_path
from layered_lr.state.state_files import STATE, hash_table
from layered_lr.training.options import RunOptions, merge_tables
from layered_lr.training.run_folder import RunFolder
from layered_lr.training.run_mark import MARK
from tests.support.models import arrays
from tests.support.resuming import SPEC, assert_same, options

ROOT = Path(__file__).parents[2]
EVIL = "from pathlib import Path\nPath({pwned!r}).touch()\ndef build(*_):\n    return 0.1\n"


@pytest.fixture
def pwned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there as soon as the module ``evil`` has been imported, which Python would find."""
    (tmp_path / "evil").mkdir()
    file = tmp_path / "pwned"
    (tmp_path / "evil" / "evil_code.py").write_text(EVIL.format(pwned=str(file)))
    monkeypatch.syspath_prepend(str(tmp_path / "evil"))
    monkeypatch.delitem(sys.modules, "evil_code", raising=False)
    return file


def forge(run: Path, model: str | None = None, function: str | None = None, **other: Any) -> None:
    """Make a folder name code or places, with digests that are right."""
    schedule = {"type": "Function", "function": function}
    for file in [*run.glob(f"checkpoints/*/{STATE}"), run / MARK]:
        table = json.loads(file.read_text())
        del table["digest"]
        about = table if file.name == MARK else table["about"]
        spec = table["spec"] if file.name == MARK else table["about"]["plan"]["spec"]
        about["options"].update(other)
        if model:
            about["options"]["model"] = model
        if function:
            spec.clear()
            spec.update({"optimizer": {"type": "AdamW", "lr": 0.01}, "schedule": schedule})
            table.setdefault("reactions", {}).clear()
        digest = hash_table(table)
        file.write_text(json.dumps({**table, "digest": digest}))


def test_going_on_imports_nothing_without_a_word(torch: Any, tmp_path: Path, pwned: Path) -> None:
    run, said = tmp_path / "run", options("torch-eager")
    whole = ll.run(SPEC, **said, checkpoints=run)
    with pytest.raises(ll.SpecError, match=r"model='tests.support.resuming:torch_net': a file names code.*--trust"):
        ll.resume(run, data=arrays())
    assert_same(ll.resume(run, data=arrays(), model=said["model"]), whole)
    assert_same(ll.resume(run, data=arrays(), trust=True), whole)
    forge(run, model="evil_code:build")
    with pytest.raises(ll.SpecError, match="evil_code:build"):
        ll.resume(run, data=arrays())
    assert not pwned.exists()


def test_functions_of_schedules_take_the_word_too(torch: Any, tmp_path: Path, pwned: Path) -> None:
    run, spec, said = tmp_path / "run", ll.Spec(ll.AdamW(0.01)), options("torch-eager")
    ll.run(spec, **said, checkpoints=run)
    forge(run, function="evil_code:build")
    for more in ({}, {"epochs": 4}):
        with pytest.raises(ll.SpecError, match=r"function 'evil_code:build': a file names it.*--trust"):
            ll.resume(run, data=arrays(), model=said["model"], **more)
    assert len(ll.resume(run, spec, data=arrays(), model=said["model"], epochs=4).losses) == 12
    assert not pwned.exists()


def test_reading_a_result_a_plan_or_a_recipe_imports_nothing(torch: Any, tmp_path: Path, pwned: Path) -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.Function("evil_code:build"))
    plan = ll.resolve(spec, [("a", (1,))], total_steps=2)
    result = ll.run(ll.Spec(ll.SGD(0.1)), **options("torch-eager", epochs=1))
    object.__setattr__(result, "plan", ll.resolve(spec, [("a", (1,))], total_steps=3))
    result.save(tmp_path / "r.npz")
    (tmp_path / "r.toml").write_text(spec.to_toml() + '[run]\nmodel = "evil_code:build"\nsave = "theirs.npz"\n')
    recipe, loaded = ll.load_recipe(tmp_path / "r.toml"), ll.Result.load(tmp_path / "r.npz")
    made = ll.plan_from_dict(plan.to_dict())
    assert str(loaded) and recipe.run == {"model": "evil_code:build", "save": "theirs.npz"}
    assert made == plan and loaded.plan.spec == recipe.spec == ll.Spec.from_toml(spec.to_toml()) == spec
    for use in (
        lambda: str(made),
        lambda: loaded.plan.table(),
        lambda: ll.plan(recipe.spec, epochs=1).table(),
        lambda: ll.run(ll.Spec(ll.SGD(0.1)), model=recipe.run["model"]),
        lambda: ll.run(ll.Spec(ll.SGD(0.1)), save=recipe.run["save"]),
        lambda: ll.run(recipe.spec, **recipe.run),
    ):
        with pytest.raises(ll.SpecError, match=r"a file names .*trust"):
            use()
    assert not pwned.exists()
    assert ll.plan_from_dict(plan.to_dict(), trust=True).lr(0) == {"rest": 0.1}
    assert pwned.exists()


def test_no_place_to_write_to_comes_from_a_folder(torch: Any, tmp_path: Path) -> None:
    run, mine, said = tmp_path / "run", tmp_path / "mine.npz", options("torch-eager")
    whole = ll.run(SPEC, **said, checkpoints=run)
    whole.save(mine)
    before, other = mine.read_bytes(), tmp_path / "other"
    forge(run, save=str(mine), checkpoints={"folder": str(other), "keep": 1})
    ll.resume(run, data=arrays(), trust=True, epochs=4)
    assert mine.read_bytes() == before and not other.exists()
    forge(run, data="cifar10", data_root=str(other))
    with pytest.raises(ll.SpecError, match="nothing is downloaded to a place that a folder names"):
        ll.resume(run, trust=True)
    assert not other.exists()


@pytest.mark.parametrize(
    "name",
    ["lock", "events.jsonl", "metrics.csv", "metrics.new", "logged.csv", "plan.json", "report.txt", "checkpoints"],
)
def test_links_in_a_folder_are_not_followed(torch: Any, tmp_path: Path, name: str) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    ll.run(SPEC, **options("torch-eager"), checkpoints=run)
    (victim / "step-00000001").mkdir(parents=True)
    (victim / "step-00000001" / STATE).write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    if name == "checkpoints":
        shutil.rmtree(run / name)
    else:
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim if name == "checkpoints" else file)
    with contextlib.suppress(ll.LayeredLRError):
        ll.resume(run, data=arrays(), trust=True, epochs=4)
    assert file.read_text() == "mine" and (victim / "step-00000001" / STATE).read_text() == "mine"
    assert len(list(victim.rglob("*"))) == 2


@pytest.mark.parametrize("words", [["plan"], ["doctor"], ["resume", "."], ["plan", "--recipe", "r.toml"], ["bench"]])
def test_the_current_folder_runs_nothing(tmp_path: Path, words: list[str]) -> None:
    """Neither by the command, nor by the processes that it starts."""
    for name in ("tqdm", "random", "lazy_loader", "click", "tomli", "numpy", "json", "pydantic", "benchmarks", "torch"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(pwned=str(tmp_path / "pwned")))
    (tmp_path / "r.toml").write_text('[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\nmodel = "tqdm:build"\n')
    (tmp_path / "recipe.toml").write_text((tmp_path / "r.toml").read_text())
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"}
    command = [sys.executable, "-m", "layered_lr", *words, *(["--list"] if words == ["bench"] else [])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert not (tmp_path / "pwned").exists(), done.stderr
    assert "Traceback" not in done.stderr and done.returncode in (0, 2), done.stderr


def test_compare_starts_processes_that_do_not_look_here_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random.py").write_text(EVIL.format(pwned=str(tmp_path / "pwned")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert _search_path()[-1] == str(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())}
    code = _PROGRAM.replace("main()", "import random; print(random.__file__)")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "random.py" in done.stdout and not (tmp_path / "pwned").exists(), done.stderr


def test_checkpoints_that_are_not_there_any_more_are_no_new_run(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    ll.run(SPEC, **options("torch-eager"), checkpoints=run)
    before = (run / "metrics.csv").read_bytes()
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="has written checkpoints, and there are none in checkpoints"):
            ll.resume(run, data=arrays(), trust=True)
        (run / "checkpoints").mkdir(exist_ok=True)  # where it was mounted
    with monkeypatch.context() as patched:  # to root, no folder refuses itself
        iterdir = Path.iterdir

        def refuse(self: Path) -> Any:
            if self.name == "checkpoints":
                raise PermissionError(errno.EACCES, "Permission denied")
            return iterdir(self)

        patched.setattr(Path, "iterdir", refuse)
        with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
            ll.resume(run, data=arrays(), trust=True)
    assert (run / "metrics.csv").read_bytes() == before
    (run / "checkpoints").rmdir()
    (tmp_path / "elsewhere").rename(run / "checkpoints")
    assert len(ll.resume(run, data=arrays(), trust=True).losses) == 9


@pytest.mark.parametrize("is_moved", [True, False])
def test_a_folder_that_goes_away_is_said_and_not_begun_anew(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_moved: bool
) -> None:
    run, said = tmp_path / "run", options("torch-eager")

    class Moves(ll.Callback):
        def on_update(self, event: Any) -> None:
            if event.step == 3:
                run.rename(tmp_path / "moved") if is_moved else shutil.rmtree(run)

    result = ll.run(SPEC, **said, callbacks=[Moves()], checkpoints=ll.Checkpoints(run, every=1))
    assert len(result.losses) == 9 and not run.exists()
    assert "has been moved or removed while the run goes on" in capsys.readouterr().err
    if is_moved:
        assert_same(ll.resume(tmp_path / "moved", data=arrays(), trust=True), result)


def test_a_longer_run_that_was_killed_before_its_first_checkpoint_is_longer(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = tmp_path / "run", options("torch-eager", epochs=None)
    whole = ll.run(SPEC, **said | {"max_steps": 9})
    ll.run(SPEC, **said | {"max_steps": 6}, checkpoints=run)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("layered_lr.training.loop.Loop._checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            ll.resume(run, data=arrays(), trust=True, max_steps=9)
    again = ll.resume(run, data=arrays(), trust=True)
    assert len(again.losses) == 9 and again.options["max_steps"] == 9
    assert again.rates["rest"].shape == whole.rates["rest"].shape


HOLDER = """
import os, sys, time
from pathlib import Path
from layered_lr.training.options import RunOptions, merge_tables
from layered_lr.training.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
if os.fork() == 0:  # it has let go of the lock before this returns
    print("held", flush=True)
time.sleep(60)
"""


def test_a_forked_child_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert parent.stdout and parent.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="is writing there"):
            RunFolder(tmp_path / "run")
        parent.kill()
        parent.wait()
        RunFolder(tmp_path / "run").close()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_a_file_system_without_locks_is_not_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(CheckpointError, match="this file system cannot lock files"):
        RunFolder(tmp_path / "run")


def test_old_checkpoints_that_a_kill_left_are_removed_at_the_next_start(torch: Any, tmp_path: Path) -> None:
    run, said = tmp_path / "run", options("torch-eager", epochs=2)
    ll.run(SPEC, **said, checkpoints=ll.Checkpoints(run, every=1, keep=1, keep_best=False))
    for step in (2, 3):
        shutil.copytree(run / "checkpoints" / "step-00000006", run / "checkpoints" / f"step-{step:08d}")
    (run / "checkpoints" / ".layered_lr-0123").mkdir()
    ll.resume(run, data=arrays(), trust=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000006"]


def test_a_place_that_is_given_takes_the_one_of_a_recipe_away(tmp_path: Path) -> None:
    for words in ('checkpoints = "theirs"', '[run.checkpoints]\nfolder = "theirs"\nkeep = 5'):
        (tmp_path / "r.toml").write_text('[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\n' + words)
        run = ll.load_recipe(tmp_path / "r.toml").run
        with pytest.raises(ll.SpecError, match="a file names a place to write to"):
            RunOptions(**merge_tables(run, {"checkpoints": {"keep": 2}}))
        merged = RunOptions(**merge_tables(run, {"checkpoints": {"folder": tmp_path / "mine"}}))
        assert merged.checkpoints is not None and merged.checkpoints.folder == tmp_path / "mine"
