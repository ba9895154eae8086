"""``torchrun --max-restarts``: where a process is killed, its new processes go on from the newest checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys
import torch
import layered_lr as ll


class Dies(ll.Callback):
    def on_update(self, event):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and os.environ["RANK"] == "1" and event.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(3072, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10))


if __name__ == "__main__":
    result = ll.run(
        ll.Spec(ll.AdamW(1e-3)), "torch-eager", net, max_steps=14, batch_size=32, precision="float64", progress=False,
        checkpoints=ll.Checkpoints(sys.argv[1], every="3 steps"), callbacks=[Dies()], save=sys.argv[2],
    )
"""


def test_new_processes_go_on_where_one_was_killed(torch: Any, tmp_path: Path) -> None:
    script, saved = tmp_path / "train.py", tmp_path / "result.npz"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
         str(script), str(tmp_path / "run"), str(saved)],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "another process than this one" in done.stderr  # the one that was not killed
    scope: dict[str, Any] = {"__name__": "train"}
    exec(SCRIPT, scope)
    alone = ll.run(
        ll.Spec(ll.AdamW(1e-3)), "torch-eager", scope["net"], max_steps=14, batch_size=32, precision="float64",
        progress=False,
    )  # fmt: skip
    found = ll.Result.load(saved)
    np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-9)  # two processes add up in another order
    for name, array in alone.weights.items():
        np.testing.assert_allclose(found.weights[name], array, rtol=1e-9, atol=1e-12)
