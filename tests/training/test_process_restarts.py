"""``torchrun --max-restarts``: where a process is killed, its new processes go on from the newest checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, random, signal, sys, threading
import torch
import layered_lr as ll


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(ll.Callback):
    # One process dies: after update 8, or in the first of some restarts at a moment that the clock chooses.
    def __init__(self, kills):
        attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        draw = random.Random(attempt)
        self.at_step = 8 if kills == 1 and attempt == 0 else None
        self.is_mine = draw.randrange(2) == int(os.environ["RANK"])
        if kills > 1 and attempt < kills and self.is_mine:
            threading.Timer(draw.uniform(0.0, 2.5), die).start()

    def on_update(self, event):
        if self.is_mine and event.step == self.at_step:
            die()


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(1), torch.nn.Linear(3072, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 10)
    )


def train(steps, **more):
    said = dict(model=net, max_steps=steps, batch_size=32, precision="float64", progress=False)
    return ll.run(ll.Spec(ll.AdamW(1e-4)), "torch-eager", **said, **more)


if __name__ == "__main__":
    folder, saved, steps, kills = sys.argv[1:]
    train(
        int(steps), checkpoints=ll.Checkpoints(folder, every="30 steps" if int(steps) > 100 else "3 steps"),
        callbacks=[Dies(int(kills))], save=saved,
    )
"""


def launch(folder: Path, steps: int, kills: int) -> tuple[ll.Result, str]:
    """Train in two processes of torchrun, one of which dies so often; returns the result, and stderr."""
    folder.mkdir()
    script, saved = folder / "train.py", folder / "result.npz"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts",
         str(kills), str(script), str(folder / "run"), str(saved), str(steps), str(kills)],
        capture_output=True, text=True, timeout=1800, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return ll.Result.load(saved), done.stderr


def test_new_processes_go_on_where_one_was_killed(torch: Any, tmp_path: Path) -> None:
    found, said = launch(tmp_path / "two", 14, 1)
    assert "another process than this one" in said  # the one that was not killed
    scope: dict[str, Any] = {"__name__": "train"}
    exec(SCRIPT, scope)
    alone = scope["train"](14)
    np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-9)  # two processes add up in another order
    for name, array in alone.weights.items():
        np.testing.assert_allclose(found.weights[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_twenty_kills_at_any_moment_change_nothing(torch: Any, tmp_path: Path) -> None:
    killed, said = launch(tmp_path / "killed", 1500, 20)
    undisturbed, _ = launch(tmp_path / "undisturbed", 1500, 0)
    assert said.count("failed (exitcode: -9)") >= 20
    assert killed.losses.tolist() == undisturbed.losses.tolist()
    for name, array in undisturbed.weights.items():
        np.testing.assert_array_equal(killed.weights[name], array)
