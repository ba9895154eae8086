"""The command line in a process of its own: signals, pipes, broken installations, nothing half-written."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import run_python

ROOT = Path(__file__).parents[1]
SPEC = '[optimizer]\ntype = "SGD"\nlr = 0.1\n'
MODEL = """
import os, signal, time
from pathlib import Path

def wait():
    Path("ready").touch()
    time.sleep(60)

def build():
    import torch
    class Slow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.fc = 0, torch.nn.Linear(3 * 32 * 32, 10)
        def forward(self, x):
            self.steps += self.training
            if self.steps == 3:
                wait()
            return self.fc(x.flatten(1))
    return Slow()
"""

WARM = """
import runpy, sys, warnings

warnings.simplefilter("default")
sys.argv[0] = "layered-lr"
runpy.run_module("layered_lr", run_name="__main__", alter_sys=True)
"""


def start(folder: Path, *words: str, path: Path | None = None) -> "subprocess.Popen[str]":
    """``layered-lr`` in ``folder``, with ``path`` before all other source roots."""
    roots = [*([str(path)] if path else []), str(ROOT), str(ROOT / "backends")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "layered_lr", *words]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def call(folder: Path, *words: str, path: Path | None = None) -> tuple[int, str, str]:
    process = start(folder, *words, path=path)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def call_warm(folder: Path, *words: str) -> tuple[int, str, str]:
    """``layered-lr`` in ``folder``, in a process that begins with torch imported."""
    done = run_python(WARM, *words, timeout_seconds=600, is_complete=bool, cwd=str(folder))
    return done.returncode, done.stdout, done.stderr


def interrupted(folder: Path, process: "subprocess.Popen[str]") -> None:
    """Ctrl-C as soon as the model says that it waits."""
    try:
        for _ in range(1200):
            if (folder / "ready").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert (folder / "ready").exists(), err
    assert process.returncode == 130, err
    assert out == "" and err.split() == ["layered-lr:", "interrupted"] and len(err.splitlines()) <= 2


def test_ctrl_c_before_anything_trains(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(MODEL)
    interrupted(tmp_path, start(tmp_path, "plan", "--model", "slow:wait"))


def test_ctrl_c_while_training_leaves_nothing_half_written(torch: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(MODEL)
    (tmp_path / "r.toml").write_text(SPEC)
    words = ("--recipe", "r.toml", "--model", "slow:build", "--backend", "torch-eager", "--save", "result.npz")
    interrupted(tmp_path, start(tmp_path, "run", *words))
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"slow.py", "r.toml", "ready"}


def test_training_that_diverges_exits_with_one_and_writes_nothing(torch: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(MODEL.replace("== 3", "== -1"))
    (tmp_path / "r.toml").write_text(SPEC.replace("0.1", "1e38"))
    words = ("--recipe", "r.toml", "--model", "slow:build", "--backend", "torch-eager", "--save", "result.npz")
    code, out, err = call_warm(tmp_path, "run", *words)
    assert code == 1 and out == "" and len(err.splitlines()) <= 2, err
    assert re.search(r"loss is (nan|inf) at step \d+, at rates rest: 1e\+38", err)
    assert not (tmp_path / "result.npz").exists()


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "plan")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(600) in (0, 1, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's")
@pytest.mark.parametrize("words", [["plan"], ["--help"], ["plan", "--json"]])
def test_standard_output_on_a_full_disk_is_said_in_a_line(tmp_path: Path, words: list[str]) -> None:
    command = f"{sys.executable} -m layered_lr {' '.join(words)} > /dev/full"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "layered-lr: what there is to say cannot be written: No space left on device.\n"


def test_a_models_module_is_found_in_the_current_folder(torch: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(MODEL)
    (tmp_path / "r.toml").write_text(SPEC + '[run]\nmodel = "slow:build"')
    code, out, err = call(tmp_path, "plan", "--recipe", "r.toml")
    assert code == 2 and out == "" and "say so: --trust" in err
    code, out, err = call(tmp_path, "plan", "--recipe", "r.toml", "--trust")
    assert (code, err) == (0, "") and "30,730" in out
    code, out, err = call_warm(tmp_path, "plan", "--recipe", "r.toml", "--model", "slow:build")
    assert (code, err) == (0, "") and "30,730" in out


@pytest.fixture
def without_frameworks(tmp_path: Path) -> Path:
    """A source root that makes both frameworks look as if they were not installed."""
    folder = tmp_path / "without"
    folder.mkdir()
    lines = [f"sys.modules[{name!r}] = None" for name in ("torch", "torchvision", "oneflow", "flowvision")]
    (folder / "sitecustomize.py").write_text("\n".join(["import sys", *lines]))
    return folder


@pytest.mark.parametrize("backend", ["torch-eager", "torch-compile", "oneflow-eager", "oneflow-graph"])
def test_a_backend_that_is_not_installed(tmp_path: Path, without_frameworks: Path, backend: str) -> None:
    code, out, err = call(tmp_path, "run", "--backend", backend, "--save", "r.npz", path=without_frameworks)
    assert code == 2 and out == "" and len(err.splitlines()) <= 2, err
    framework = backend.split("-")[0]
    if framework == "oneflow" and sys.version_info >= (3, 11):
        assert "wheels for Python 3.7 to 3.10" in err and "Use a Python 3.10 environment" in err
    else:
        assert f"{framework} is not installed" in err and f"pip install 'layered-lr[{framework}]'" in err
    assert not (tmp_path / "r.npz").exists()


def test_a_plan_needs_no_framework(tmp_path: Path, without_frameworks: Path) -> None:
    code, out, err = call(tmp_path, "plan", "--data", "cifar10", path=without_frameworks)
    assert (code, err) == (0, "") and "oneflow-graph" in out and "2,223,872" in out


def test_the_doctor_of_a_machine_without_frameworks(tmp_path: Path, without_frameworks: Path) -> None:
    code, out, err = call(tmp_path, "doctor", path=without_frameworks)
    assert (code, err) == (1, "")
    for name in ("torch-eager", "torch-compile", "oneflow-eager", "oneflow-graph"):
        assert re.search(rf"{name} +does not work", out)
    assert out.count("pip install") + out.count("Use a Python 3.10 environment") == 4


def test_the_doctor_of_a_machine_with_broken_frameworks(tmp_path: Path) -> None:
    """One that lacks a shared library, and one that ends the process that imports it."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    (tmp_path / "oneflow.py").write_text("import os\nos.abort()")
    code, out, err = call(tmp_path, "doctor", path=tmp_path)
    assert (code, err) == (1, "") and out.count("does not work") == 4
    assert "libtorch_cpu.so: cannot open shared object file" in out and "exit code -6" in out
    assert out.count("pip install --force-reinstall") == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on(
    torch: Any, tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """143, as a cluster's scheduler expects, or 130; and what it says can be typed."""
    (tmp_path / "slow.py").write_text(MODEL.replace("time.sleep(60)", f"os.kill(os.getpid(), {number:d})"))
    (tmp_path / "recipe.toml").write_text(SPEC)
    words = ["run", "--recipe", "recipe.toml", "--model", "slow:build", "--max-steps", "5", "--checkpoint-dir", "there"]
    ended, _, err = call_warm(tmp_path, *words)
    assert ended == code, err
    assert "after 3 updates. To go on: layered-lr resume there --trust" in err
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow", raising=False)
    answer = request.getfixturevalue("call")("resume", "there", "--trust")  # here: a process imports torch for 3 s
    assert answer.code == 0, answer.err
    assert "after 5 steps" in answer.out


def test_ctrl_c_twice_ends_at_once(torch: Any, tmp_path: Path) -> None:
    twice = "os.kill(os.getpid(), signal.SIGINT)\n    " * 2
    (tmp_path / "slow.py").write_text(MODEL.replace("time.sleep(60)", f"{twice}Path('awake').touch()"))
    (tmp_path / "recipe.toml").write_text(SPEC)
    words = ["run", "--recipe", "recipe.toml", "--model", "slow:build", "--max-steps", "5", "--checkpoint-dir", "there"]
    ended, _, err = call_warm(tmp_path, *words)
    assert ended == 130 and (tmp_path / "ready").exists(), err
    assert not (tmp_path / "awake").exists(), "it waited for the model"


def test_the_way_of_a_closed_terminal_that_nohup_ignores(tmp_path: Path) -> None:
    """A signal that is ignored when the run begins stays ignored; one that is not is noted."""
    script = """
    import os, signal
    from layered_lr.training.signals import Stop
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Stop() as ignoring:
        os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Stop() as noting:
        os.kill(os.getpid(), signal.SIGHUP)
    try:
        noting.obey()
    except SystemExit as end:
        print(ignoring.signal, noting.signal.name, end.code)
    """
    assert run_script(script) == (0, "None SIGHUP 129\n", "")


@pytest.mark.parametrize(
    ("main", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(2)", 2),
        ("sys.exit()", 0),
        ("signal.raise_signal(signal.SIGINT)", 130),
        ("atexit.register(signal.raise_signal, signal.SIGINT)\n        sys.exit(0)", 0),
        ("sys.modules['oneflow'] = sys\n        signal.raise_signal(signal.SIGINT)", 130),
    ],
)
def test_ctrl_c_at_the_very_end(main: str, code: int) -> None:
    script = f"""
    import atexit, signal, sys
    from layered_lr import cli

    def main():
        {main}

    cli.main = main
    cli.console()
    """
    assert run_script(script) == (code, "", "")


def run_script(script: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_ctrl_c_during_the_first_imports(tmp_path: Path) -> None:
    """It waits until they are done, and then ends the process with 130."""
    finder = """
    import os, signal, sys
    class Finder:
        def find_spec(self, name, path, target=None):
            if name == "layered_lr.flags":
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Finder())
    """
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(finder))
    code, out, err = call(tmp_path, "run", path=tmp_path)
    assert (code, out, err.split()) == (130, "", ["layered-lr:", "interrupted"])
