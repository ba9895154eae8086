"""A short run to log, and its logs as their own readers give them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from tests.support.resuming import options

SPEC = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("head", lr_scale=2.0)], ll.ExponentialLR(gamma=0.9))
GROUPS = ("head", "rest")
KINDS = ("csv", "jsonl", "tensorboard")


def said(**other: Any) -> dict[str, Any]:
    """Two epochs of five updates, without accumulation."""
    return options("torch-eager", **{"epochs": 2, "accumulate_steps": 1, "ema_decay": None, **other})


def place(kind: str, folder: Path) -> Path:
    return folder / {"csv": "log.csv", "jsonl": "log.jsonl", "tensorboard": "board"}[kind]


def read(kind: str, folder: Path) -> dict[str, dict[int, float]]:
    """Each number of a log by name and update, as its own reader gives it."""
    path, numbers = place(kind, folder), {}  # type: ignore[var-annotated]
    if kind == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(path), {"scalars": 0})
        board.Reload()
        return {name: {event.step: event.value for event in board.Scalars(name)} for name in board.Tags()["scalars"]}
    if kind == "csv":
        with path.open(newline="") as file:
            rows = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                assert int(row["step"]) not in numbers.get(name, {}), "one row a number"
                numbers.setdefault(name, {})[int(row["step"])] = value
    return numbers


def assert_log_of(result: ll.Result, kind: str, folder: Path, per_epoch: int = 5) -> None:
    """The log says what the result says, to the last bit (TensorBoard keeps float32)."""
    found, steps = read(kind, folder), len(result.losses)

    def same(name: str, expected: Any, at: list[int]) -> None:
        assert list(found[name]) == at, name
        kept = np.float32 if kind == "tensorboard" else np.float64
        np.testing.assert_array_equal(np.array(list(found[name].values()), kept), np.asarray(expected, kept), name)

    every = list(range(steps))
    same("loss", result.losses, every)
    for group in GROUPS:
        same(f"rate/{group}", result.rates[group], every)
        same(f"grad_norm/{group}", result.group_grad_norms[group], every)
    same("accuracy", result.accuracies, [min((n + 1) * per_epoch, steps) - 1 for n in range(len(result.accuracies))])


def words(folder: Path) -> list[str]:
    return [f"{kind}:{place(kind, folder)}" for kind in KINDS]


def check_logs(backend: str, folder: str) -> None:
    """Make a run with every log, and check that each says what the result says."""
    chosen = options(backend, epochs=2, accumulate_steps=1, ema_decay=None, log=words(Path(folder)))
    result = ll.run(SPEC, **chosen)
    for kind in KINDS:
        assert_log_of(result, kind, Path(folder))
    assert result.group_grad_norms["head"].all(), "they were measured"
