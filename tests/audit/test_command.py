"""``layered-lr audit module:make``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import sys
import torch

def clean():
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return optimizer, net, torch.optim.lr_scheduler.StepLR(optimizer, 30)

def faulty():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    return torch.optim.SGD(net[0].parameters(), lr=0.1), net

def by_name():
    optimizer, net, scheduler = clean()
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 90}

def other():
    return 3

def fails():
    raise RuntimeError("no data here")

def ends():
    sys.exit(0)
"""


@pytest.fixture
def module(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder."""
    (tmp_path / "made_recipes.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield "made_recipes"
    sys.path[:] = path
    sys.modules.pop("made_recipes", None)


def test_a_clean_recipe_ends_with_0(call: Any, module: str) -> None:
    answer = call("audit", f"{module}:clean")
    assert answer.code == 0 and answer.out == "SGD, StepLR, 1 group, 2 of 2 parameters: nothing found\n"
    assert call("audit", f"{module}:by_name").code == 0


def test_findings_end_with_1(call: Any, module: str) -> None:
    answer = call("audit", f"{module}:faulty")
    assert answer.code == 1 and "in-no-group" in answer.out and "1.weight, 1.bias" in answer.out
    table = json.loads(call("audit", f"{module}:faulty", "--json").out)
    assert [finding["kind"] for finding in table["findings"]] == ["in-no-group"]


def test_steps_win_over_what_the_function_gives(call: Any, module: str) -> None:
    assert call("audit", f"{module}:clean", "--steps", "90").code == 0
    answer = call("audit", f"{module}:by_name", "--steps", "10")
    assert answer.code == 1 and "length-mismatch" in answer.out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "returned 3; must return (optimizer, model)"),
        ("fails", "failed: RuntimeError: no data here"),
        ("ends", "failed: SystemExit: 0"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_wrong_input_ends_with_2(call: Any, module: str, name: str, message: str) -> None:
    answer = call("audit", f"{module}:{name}")
    assert answer.code == 2 and message in answer.err


def test_a_module_is_needed(call: Any) -> None:
    assert call("audit").code == 2
    answer = call("audit", "no_such_module:make")
    assert answer.code == 2 and "must be package.module:name" in answer.err
