"""What every test may ask for: each backend by name, where its framework is installed, and the command line."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from layered_lr.backend.base import Backend
from layered_lr.backend.loading import load_backend
from layered_lr.cli import main
from layered_lr.errors import BackendUnavailable
from layered_lr.registry import FRAMEWORKS, TABLE

pytest_plugins = ["tests.support.oneflow_crashes", "tests.support.old_torch"]

# For this process and those that tests start; frameworks read it when they are imported. Tiny batches gain nothing by
# threads, and threads wait for each other on a busy machine: tests/backends/test_phases_torch.py took 51 s of CPU time,
# and takes 29 s (torch 2.14, 2 cores).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test asks for two threads, none turns in a loop to wait
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Before torch compiles into an empty cache for the first time, it tries the compiler with each instruction set of the
# processor. Without these trials 15 s of CPU time became 3 s (torch 2.14); a compiler that lacks one says so itself.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

REQUIRE = "LAYERED_LR_REQUIRE_BACKENDS"


def required() -> set[str]:
    """The backends that must work here: CI names them in the environment, so that nothing skips in silence."""
    names = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")} - {""}
    if unknown := names - set(TABLE):
        raise pytest.UsageError(f"{REQUIRE} names {', '.join(sorted(unknown))}; the backends are {', '.join(TABLE)}")
    return names


def pytest_configure(config: pytest.Config) -> None:
    required()  # a misspelt name would require nothing
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell script leaves it to what it runs in background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup leaves it; the processes of tests inherit it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=list(TABLE))
def backend_name(request: pytest.FixtureRequest) -> str:
    """Each of the four names, in turn."""
    return str(request.param)


@pytest.fixture
def backend(backend_name: str) -> Backend:
    """The backend of that name on the CPU; skips where it does not work, fails where it is required."""
    return open_backend(backend_name)


def open_backend(name: str) -> Backend:
    """A backend on the CPU, or a skip, or a failure where ``LAYERED_LR_REQUIRE_BACKENDS`` names it."""
    try:
        opened = load_backend(name, "cpu")
        keep_imports()
        if name == "torch-compile":  # which warns from the ninth model of one class on that a process has compiled
            requires("torch")._dynamo.reset()
        return opened
    except BackendUnavailable as error:
        if name in required():
            pytest.fail(f"{REQUIRE} names it: {error}")
        pytest.skip(str(error))


def pytest_collection_finish() -> None:
    keep_imports()  # every test, and every module that they import


_MANY_MODULES = 100
_kept = {"modules": 0}


def keep_imports() -> None:
    """Spare the garbage collector the modules that were imported since the last time, where they are many.

    It goes through all objects of the process: the tests, torch and OneFlow are more than a million, and stay to the
    end anyhow. Each OneFlow graph begins with a collection (``collect_garbage_first``), which took five times as long
    as the graph itself.
    """
    if len(sys.modules) >= _kept["modules"] + _MANY_MODULES:
        gc.collect()
        gc.freeze()
        _kept["modules"] = len(sys.modules)


@pytest.fixture(scope="session")
def torch() -> Any:
    """The framework, for tests in which torch is the oracle."""
    return requires("torch")


@pytest.fixture(scope="session")
def oneflow() -> Any:
    """The framework, for tests of OneFlow itself."""
    return requires("oneflow")


def requires(framework: str) -> Any:
    """The framework's module; skips or fails as its eager backend does where it is not installed."""
    open_backend(FRAMEWORKS[framework].loop)
    return pytest.importorskip(framework)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command in this process: words -> exit code, stdout, stderr."""

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["layered-lr", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code or 0
        assert isinstance(code, int)
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused() -> Callable[[Answer, str], None]:
    """What every refusal of the command line has: exit code 2, one or two lines on stderr, nothing else."""

    def check(answer: Answer, message: str) -> None:
        assert answer.code == 2 and answer.out == ""
        assert answer.err.startswith("layered-lr: ") and 1 <= len(answer.err.splitlines()) <= 2
        assert message in answer.err and "Traceback" not in answer.err

    return check


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is as wide as where stdout is a file; pytest-xdist sets ``COLUMNS`` in its processes."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(params=["torch", "oneflow"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Each framework's module."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def framework_of_backend(request: pytest.FixtureRequest, backend_name: str, backend: Any) -> Any:
    """The module of the framework that ``backend`` stands on."""
    return request.getfixturevalue(backend_name.split("-")[0])


@pytest.fixture
def in_process(oneflow: Any) -> Callable[..., dict[str, Any]]:
    """``graph_process.run``, where OneFlow works."""
    from tests.support import graph_process  # after pytest has loaded its plugins, see pytest_plugins

    return graph_process.run


@pytest.fixture(scope="session")
def torch_steplr(torch: Any) -> Callable[[float, int, float, Iterable[int]], list[float]]:
    """``torch.optim.lr_scheduler.StepLR`` in its own closed form: (lr, step_size, gamma, steps) -> rates."""

    def rates(lr: float, step_size: int, gamma: float, steps: Iterable[int]) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
        found = []
        for step in steps:
            scheduler.last_epoch = step
            found += scheduler._get_closed_form_lr()
        return found

    return rates
