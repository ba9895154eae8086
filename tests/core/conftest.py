"""Oracles for the tests of the core, and the command line as a function."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from layered_lr.cli import main


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
