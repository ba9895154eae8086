"""The example that lets Optuna choose the rates runs, and says what was the best."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep_with_optuna.py"


def test_the_example_finds_a_best_trial(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "MAX_STEPS": "2"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    words = done.stdout.splitlines()[-1]
    assert words.startswith("{'lr': ") and "'lr_scale': " in words and 0 <= float(words.split()[-1]) <= 1
