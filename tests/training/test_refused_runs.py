"""A run that is refused before its first update leaves nothing in its folder, and touches nothing that was there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.training.folder_lock import FolderLock
from layered_lr.training.run_folder import RunFolder
from layered_lr.training.run_mark import MARK
from tests.support.models import arrays, mlp
from tests.support.wrong_models import WRONG_IN_TRAINING, answering

SPEC = ll.Spec(ll.SGD(0.1))
Make = Callable[[Any], dict[str, Any]]

REFUSED: dict[str, Make] = {
    "by its data": lambda torch: {"data": "nowhere/data.npz"},
    "by its spec": lambda torch: {"spec": ll.Spec(ll.SGD(0.1), groups=[ll.Group("no_such_layer")])},
    "by a callable that raises": lambda torch: {"model": lambda: 1 / 0},
    "by what the model answers": lambda torch: {"model": lambda: torch.nn.Flatten(1)},
    "by its first update": lambda torch: {"model": answering(torch, WRONG_IN_TRAINING["a tuple"])},
    "by a function no file can hold": lambda torch: {
        "spec": ll.Spec(ll.SGD(0.1), schedule=ll.Function(lambda step: 1.0))
    },
}


def refused(torch: Any, folder: Path, name: str) -> None:
    given = {"model": mlp(torch), "data": arrays(), "spec": SPEC, **REFUSED[name](torch)}
    with pytest.raises((ll.LayeredLRError, ZeroDivisionError)):
        ll.run(given.pop("spec"), "torch-eager", epochs=1, batch_size=8, progress=False, checkpoints=folder, **given)


@pytest.mark.parametrize("name", REFUSED)
def test_folders_that_a_refused_run_has_made_are_removed(torch: Any, tmp_path: Path, name: str) -> None:
    refused(torch, tmp_path / "runs" / "first", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["by its data", "by its first update"])
def test_a_folder_of_the_users_is_as_it_was(torch: Any, tmp_path: Path, name: str) -> None:
    empty, own = tmp_path / "empty", tmp_path / "own"
    empty.mkdir()
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    (own / "lock").touch()  # as a run leaves it that was killed before it marked the folder
    refused(torch, empty, name)
    refused(torch, own, name)
    assert list(empty.iterdir()) == []
    assert [(file.name, file.read_text()) for file in own.iterdir()] == [("notes.txt", "mine")]


def test_a_run_that_has_begun_keeps_what_it_has_written(torch: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 8, "progress": False, "checkpoints": tmp_path}
    with pytest.raises(ll.TrainingDiverged):
        ll.run(ll.Spec(ll.SGD(1e38)), "torch-eager", mlp(torch), arrays(), epochs=3, **options)
    before = sorted(tmp_path.iterdir())
    assert tmp_path / "recipe.toml" in before
    with pytest.raises(ll.DataError):
        ll.resume(tmp_path, model=mlp(torch), data="nowhere/data.npz")
    with pytest.raises(ll.CheckpointError, match="holds a run already"):
        ll.run(SPEC, "torch-eager", mlp(torch), arrays(), epochs=1, **options)
    assert sorted(tmp_path.iterdir()) == before


def test_another_runs_lock_is_not_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        with pytest.raises(ll.CheckpointError, match="is writing there"):
            RunFolder(tmp_path / "run")
        assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [MARK, "lock"]


def test_a_lock_on_a_file_that_its_owner_removed_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr.training import folder_lock

    lock_file, take = tmp_path / "lock", folder_lock._lock
    removed: list[Path] = []

    def take_late(handle: int) -> None:
        if not removed:
            lock_file.unlink()
            removed.append(lock_file)
        take(handle)

    monkeypatch.setattr(folder_lock, "_lock", take_late)
    lock = FolderLock(lock_file)
    assert removed and lock_file.is_file(), "it was taken again, on a file that is there"
    lock.close()
