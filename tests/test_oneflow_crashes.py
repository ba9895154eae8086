"""OneFlow's own crash is told from every other end of a process, and what it ends runs again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import ROOT, isolated
from tests.support.oneflow_crashes import is_oneflows_own, try_again_after_crash

WARNING = "OneFlow's own crash, run again"


def end_once(path: str, how: str, protobuf: bool) -> int:
    """Ends its process in one of several ways at the first call; says how often it was called."""
    import ctypes
    import os
    import time
    from pathlib import Path

    file = Path(path)
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    if len(file.read_text()) > 1:
        return len(file.read_text())
    if protobuf:
        import google.protobuf.pyext._message  # type: ignore[import-untyped] # noqa: F401 - as OneFlow does
    if how == "own thread":
        library = ctypes.CDLL(None)
        library.pthread_create(ctypes.byref(ctypes.c_ulong()), None, library.abort, None)
        time.sleep(60)
    if how == "mistake":
        os.write(2, b"F1128 06:14:43 Check failed: (1 vs. 2)\n")
        library = ctypes.CDLL(None)
        library.pthread_create(ctypes.byref(ctypes.c_ulong()), None, library.abort, None)
        time.sleep(60)
    if how == "Python's thread":
        os.abort()
    if how == "at the end":
        import atexit

        atexit.register(os.abort)
        return 1
    if how == "kill":
        os.kill(os.getpid(), 9)
    raise AssertionError("as said")


@pytest.mark.parametrize("how", ["own thread", "at the end"])
def test_what_oneflows_own_crash_ends_runs_again(oneflow: Any, tmp_path: Path, how: str) -> None:
    with pytest.warns(UserWarning, match=WARNING):
        outcome = isolated(end_once, str(tmp_path / "calls"), how, True)
    assert (outcome.returncode, outcome.value) == (0, 2)


@pytest.mark.parametrize("how", ["mistake", "Python's thread", "kill", "assertion"])
def test_what_ends_otherwise_does_not(oneflow: Any, tmp_path: Path, how: str) -> None:
    outcome = isolated(end_once, str(tmp_path / "calls"), how, True)
    assert outcome.returncode not in (0, None) and outcome.value is None


def test_nor_does_a_process_without_oneflow(tmp_path: Path) -> None:
    assert isolated(end_once, str(tmp_path / "calls"), "own thread", False).returncode < 0


def test_the_third_crash_is_a_failure() -> None:
    crashes = iter(["one", "two", "three"])
    with pytest.warns(UserWarning, match=WARNING) as warned:
        assert try_again_after_crash(lambda: next(crashes), lambda crash: crash) == "three"
    assert len(warned) == 2


def test_last_words_that_were_seen() -> None:
    crash = "Fatal Python error: Segmentation fault\n\n{} 0x00007f9f (most recent call first):\n  File ...\n\n{}"
    own = crash.format("Thread", "Extension modules: numpy.random.mtrand, google.protobuf.pyext._message (total: 14)")
    assert is_oneflows_own("libibverbs not available\n" + own)
    assert not is_oneflows_own(own.replace("Thread", "Current thread"))
    assert not is_oneflows_own(own.replace(", google.protobuf.pyext._message", ""))
    assert not is_oneflows_own("") and not is_oneflows_own("Segmentation fault")


IN_PROCESS = """
import ctypes, os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("how", ["own", "own each time", "python"])
def test_it(how):
    file = Path(how)
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    if how == "own" and len(file.read_text()) > 1:
        return
    import google.protobuf.pyext._message
    library = ctypes.CDLL(None)
    if how != "python":
        library.pthread_create(ctypes.byref(ctypes.c_ulong()), None, library.abort, None)
        time.sleep(60)
    os.abort()

@pytest.mark.parametrize("number", range(8))
def test_others(number):
    pass
"""


def test_a_crash_in_one_of_pytests_processes_loses_no_test(oneflow: Any, tmp_path: Path) -> None:
    """With pytest-xdist: the tests beside it run, and it itself runs again where the crash was OneFlow's own."""
    (tmp_path / "test_some.py").write_text(IN_PROCESS)
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = ["--dist", "worksteal", "--max-worker-restart", "9", "-rA"]
    plugins = ["-p", "xdist", "-p", "tests.support.oneflow_crashes", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-n", "1", *words, "test_some.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "2 failed, 9 passed, 3 rerun" in done.stdout, done.stdout[-4000:]
    assert [(tmp_path / name).read_text() for name in ("own", "own each time", "python")] == ["xx", "xxx", "x"]
    assert "1 of at most 2: test_some.py::test_it[own]\n" in done.stdout
    assert "2 of at most 2: test_some.py::test_it[own each time]\n" in done.stdout
    assert "Fatal Python error: Aborted" in done.stdout
