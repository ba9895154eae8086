"""In one of several processes, each would make the whole run: refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.training.many_processes import check_single_process
from tests.support.replicas import spread

FEW: dict[str, Any] = {"max_steps": 1, "batch_size": 8, "progress": False}


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_one_of_several_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "2")
    for call in (
        lambda: ll.run(backend="torch-eager", checkpoints=tmp_path / "run", save=tmp_path / "r.npz", **FEW),
        lambda: ll.resume(tmp_path / "run"),
        lambda: ll.compare(steps=1),
    ):
        with pytest.raises(ll.Unsupported, match=rf"one of 2 \({name}=2, .* Start a single one"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", ["1", "", "many", "0"])
def test_a_single_one_is_not(count: str) -> None:
    assert check_single_process({"WORLD_SIZE": count}) is None
    with pytest.raises(ll.Unsupported, match="as mpirun sets it"):
        check_single_process({"WORLD_SIZE": count, "OMPI_COMM_WORLD_SIZE": "4"})


def test_one_of_a_process_group_without_a_launcher_is_refused(torch: Any) -> None:
    answers = spread("try_everything")["try_everything"]
    assert len(answers) == 3, answers  # and no file was written
    for answer in answers:
        assert answer.startswith("Unsupported: this process is one of 2 (torch.distributed has a process group of 2)")
        assert "Start a single one" in answer


def test_a_process_group_of_one_is_not() -> None:
    group = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 1)
    assert check_single_process({}, {"torch.distributed": group}) is None
    without = SimpleNamespace(is_available=lambda: False)  # as in a torch that was built so
    assert check_single_process({}, {"torch.distributed": without}) is None
