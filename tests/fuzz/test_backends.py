"""Random cases and specs on each real backend, in processes of their own: the numbers by hand, or one clear error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from layered_lr.registry import TABLE
from tests.conftest import open_backend
from tests.support.fuzz import rounds
from tests.support.fuzz_backends import TARGETS
from tests.support.isolation import isolated

# How many calls of each target. `compare` takes most of a minute, so it is only in the long mode (`make fuzz`), whose
# processes each make those of `LONG`. A loop of ones own on torch-compile is that of torch-eager.
QUICK = {
    "torch-eager": {"cases": 8, "run": 12, "loop": 12},
    "torch-compile": {"cases": 1, "run": 2},
    "oneflow-eager": {"cases": 4, "run": 6, "loop": 8},
    "oneflow-graph": {"cases": 2, "run": 3, "loop": 2},
}
LONG = {
    "torch-eager": {"cases": 60, "run": 120, "loop": 120, "compare": 1},
    "torch-compile": {"cases": 20, "run": 20, "compare": 1},
    "oneflow-eager": {"cases": 40, "run": 60, "loop": 60, "compare": 1},
    "oneflow-graph": {"cases": 20, "run": 30, "loop": 30, "compare": 1},
}


def fuzz(backend: str, examples: dict[str, int], number: int, note: str) -> None:
    """In a process of its own."""
    from tests.support.fuzz_backends import fuzz_round

    fuzz_round(backend, examples, number, note)


@pytest.mark.parametrize("backend_name", TABLE)
def test_a_backend(backend_name: str, tmp_path: Path) -> None:
    open_backend(backend_name)
    note = tmp_path / "arguments"
    for number in rounds():
        examples = (LONG if number else QUICK)[backend_name]
        note.write_text("the imports")
        try:
            outcome = isolated(fuzz, backend_name, examples, number, str(note), timeout_seconds=1800)
        except subprocess.TimeoutExpired:
            pytest.fail(f"round {number} hangs in {note.read_text()}")
        said = f"round {number}, exit code {outcome.returncode} in {note.read_text()}"
        assert outcome.returncode == 0, f"{outcome.stderr[-6000:]}\n{said}"
        print(f"{backend_name}: round {number}, {sum(examples.values())} calls, nothing found")  # with pytest -s


def test_every_target_is_called() -> None:
    assert {name for examples in LONG.values() for name in examples} == set(TARGETS)
    assert set(QUICK) == set(LONG) == set(TABLE)
