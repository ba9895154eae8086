"""A run of the command in two processes of torchrun, one of which is killed; and what goes on with it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
UPDATES = 600
_NET = """
import torch


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(1), torch.nn.Linear(3072, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 10)
    )
"""
_RECIPE = f"""
[optimizer]
type = "AdamW"
lr = 1e-4

[run]
backend = "torch-eager"
model = "killed_net:net"
max_steps = {UPDATES}
batch_size = 32
precision = "float64"

[run.checkpoints]
every = "30 steps"
"""


class Ended(NamedTuple):
    """How a launch ended.

    Args:
        code: Of torchrun.
        said: What all processes wrote to stderr.
        seconds: From the kill to the end; from the start where nobody was killed.
        had_begun: Whether there was a checkpoint when the process was killed.
    """

    code: int
    said: str
    seconds: float
    had_begun: bool


def environment(*folders: Path) -> dict[str, str]:
    """For a process that imports this checkout, and what lies in folders."""
    paths = [str(ROOT), str(ROOT / "backends"), *map(str, folders)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def torchrun(*words: str, count: int = 2, restarts: int = 0) -> list[str]:
    """The command that starts so many processes."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    return [*launcher, "--nproc-per-node", str(count), "--max-restarts", str(restarts), *words]


def begin(folder: Path, kill: random.Random | None = None, is_late: bool = True) -> Ended:
    """Start a new run in ``folder/run``.

    Args:
        folder: New.
        kill: Draws which process is killed, and when; None kills none.
        is_late: Whether that is after the first checkpoint; else from the start of the processes on.
    """
    folder.mkdir()
    (folder / "killed_net.py").write_text(_NET)
    (folder / "recipe.toml").write_text(_RECIPE)
    words = ["-m", "layered_lr", "run", "--recipe", "recipe.toml", "--checkpoint-dir", "run", "--save", "result.npz"]
    return _end(folder, [*words, "--trust"], kill, is_late)


def go_on(folder: Path) -> Ended:
    """Go on with the run, by a new launch of as many processes."""
    return _end(folder, ["-m", "layered_lr", "resume", "run", "--save", "result.npz", "--trust"], None, True)


def _end(folder: Path, words: list[str], kill: random.Random | None, is_late: bool) -> Ended:
    said = folder / "stderr.txt"
    with said.open("w") as errors:
        launched = subprocess.Popen(
            torchrun(*words), cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            had_begun = kill is not None and _kill_one(launched, folder, kill, is_late)
            began = time.monotonic()
            code = launched.wait(300)
        finally:
            launched.kill()
    return Ended(code, said.read_text(errors="replace"), time.monotonic() - began, had_begun)


def _kill_one(launched: subprocess.Popen[bytes], folder: Path, draw: random.Random, is_late: bool) -> bool:
    """Kill one of the processes at a moment that is drawn; whether there was a checkpoint by then."""
    workers = []
    while len(workers) < 2 and launched.poll() is None:
        time.sleep(0.02)
        workers = _children(launched.pid)
    while is_late and not _has_checkpoint(folder) and launched.poll() is None:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 1.5 if is_late else 4.0))
    had_begun = _has_checkpoint(folder)
    os.kill(draw.choice(workers), signal.SIGKILL)
    return had_begun


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        found += map(int, thread.read_text().split())
    return sorted(found)


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "run" / "checkpoints").glob("step-*"))
