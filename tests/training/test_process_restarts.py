"""``torchrun --max-restarts``: where a process is killed, its new processes go on from the newest checkpoint."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.killed_runs import environment, torchrun

SCRIPT = """
import os, random, signal, sys, threading
import torch
import layered_lr as ll


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(ll.Callback):
    # One process dies: after update 8, and 11; or in the first of some restarts at a moment that the clock chooses.
    def __init__(self, kills):
        attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        draw = random.Random(attempt)
        self.at_step = 8 + 3 * attempt if attempt < kills <= 2 else None
        self.is_mine = draw.randrange(2) == int(os.environ["RANK"])
        if kills > 2 and attempt < kills and self.is_mine:
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


def start(folder: Path, steps: int, kills: int, restarts: int) -> subprocess.CompletedProcess[str]:
    """Train in two processes of torchrun, one of which dies so often."""
    folder.mkdir()
    script = folder / "train.py"
    script.write_text(SCRIPT)
    words = [str(script), str(folder / "run"), str(folder / "result.npz"), str(steps), str(kills)]
    return subprocess.run(
        torchrun(*words, restarts=restarts), capture_output=True, text=True, timeout=1800, env=environment()
    )


def launch(folder: Path, steps: int, kills: int) -> tuple[ll.Result, str]:
    """The same, with as many restarts; returns the result, and stderr."""
    done = start(folder, steps, kills, kills)
    assert done.returncode == 0, done.stderr[-3000:]
    return ll.Result.load(folder / "result.npz"), done.stderr


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


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("restarts", [0, 1])
def test_where_the_restarts_run_out_the_run_ends_and_can_go_on(torch: Any, tmp_path: Path, restarts: int) -> None:
    done = start(tmp_path / "ended", 14, restarts + 1, restarts)
    assert done.returncode == 1 and not (tmp_path / "ended" / "result.npz").exists()
    assert done.stderr.count("ProcessLost: another process than this one") == restarts + 1  # each time by the other
    assert done.stderr.count("To go on from the newest checkpoint: layered-lr resume") == restarts + 1
    scope: dict[str, Any] = {"__name__": "train"}
    exec(SCRIPT, scope)
    folder = tmp_path / "ended" / "run"
    went_on = ll.resume(folder, model=scope["net"], callbacks=[])
    np.testing.assert_allclose(went_on.losses, scope["train"](14).losses, rtol=1e-9)
