"""A tiny model, data and recipe for the command, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.models import arrays

NET = "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(12, 3))\n"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words that name them on the command line; the current folder is the temporary one."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    x, y, x_test, y_test = arrays(16, 8)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    (tmp_path / f"tiny_{tmp_path.name}.py").write_text(NET)
    (tmp_path / "own.toml").write_text("[optimizer]\ntype = 'SGD'\nlr = 0.1\n[run]\nema_decay = 0.9\n")
    model = f"tiny_{tmp_path.name}:build"
    return ("--recipe", "own.toml", "--model", model, "--data", "data.npz", "--batch-size", "8", "--no-progress")
