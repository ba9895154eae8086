"""A run that goes back is killed at any moment, and goes on as if it had not been."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.state.state_files import STATE, hash_table
from layered_lr.training.run_folder import RunFolder
from tests.support.models import arrays
from tests.support.resuming import assert_same, options

# From update 4 on, rates are so high that the weights overflow, until they have been lowered often.
SPEC = ll.Spec(ll.SGD(0.01), phases=[ll.Phase(4), ll.Phase(optimizer=ll.SGD(1e30))])


def said(**other: Any) -> dict[str, Any]:
    return options("torch-eager", epochs=2, accumulate_steps=1, ema_decay=None, **other)


@pytest.mark.parametrize(
    ("every", "keep", "factor"), [(1, 1, 1e-30), (1, 3, 1e-11), (3, 1, 1e-9)], ids=["each", "many", "seldom"]
)
def test_a_run_that_rolls_back_is_killed_at_each_event_and_goes_on_bitwise(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, keep: int, factor: float
) -> None:
    """A copy of the folder is what a kill leaves."""
    copies: list[Path] = []
    event, policy = RunFolder.event, ll.Divergence("rollback", rollback_factor=factor)

    class Copies(ll.Callback):
        def on_checkpoint(self, event: Any) -> None:
            copy(event.run.folder)

    def copy(folder: Path) -> None:
        copies.append(tmp_path / f"copy {len(copies)}")
        shutil.copytree(folder, copies[-1])

    def watched(self: RunFolder, what: str, **values: Any) -> None:
        event(self, what, **values)
        copy(self.path)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "event", watched)
        whole = ll.run(
            SPEC,
            **said(divergence=policy, callbacks=[Copies()]),
            checkpoints=ll.Checkpoints(tmp_path / "run", every=every, keep=keep, keep_best=False),
        )
    assert len(whole.events) >= 2 and len(whole.losses) == 10
    assert len(copies) > len(whole.events)
    for folder in copies:
        again = ll.resume(folder, data=arrays(), trust=True)
        assert_same(again, whole)
        assert again.events == whole.events, folder.name


def test_a_checkpoint_of_an_older_version_has_the_one_before_it_to_go_back_to(torch: Any, tmp_path: Path) -> None:
    """It does not say which states the run had: the older one on the disk is taken."""

    class Ends(ll.Callback):
        def on_checkpoint(self, event: Any) -> None:
            if event.run.step == 5:
                event.run.stop()

    run, policy = tmp_path / "run", ll.Divergence("rollback", rollback_factor=1e-30)
    ll.run(SPEC, **said(divergence=policy, callbacks=[Ends()]), checkpoints=ll.Checkpoints(run, every=1))
    for file in run.glob("checkpoints/*/" + STATE):
        table = json.loads(file.read_text())
        del table["digest"]
        for name in ("good", "back_at", "counted"):
            del table["about"][name]
        file.write_text(json.dumps({**table, "digest": hash_table(table)}))
    result = ll.resume(run, data=arrays(), trust=True)
    assert [event["to"] for event in result.events if event["event"] == "rolled back"] == [5, 4]
    assert len(result.losses) == 10 and np.isfinite(result.losses).all()


def test_how_often_updates_were_skipped_in_a_row_is_remembered(torch: Any, tmp_path: Path) -> None:
    """Each update fails: the run gives up after 20, wherever it was stopped in between."""

    class Stops(ll.Callback):
        def on_divergence(self, event: Any) -> None:
            if event.step == 12:
                event.run.stop()

    spec = ll.Spec(ll.SGD(0.01), phases=[ll.Phase(1), ll.Phase(optimizer=ll.SGD(1e38))])
    policy = ll.Divergence("skip", skip_advances=True)
    run, long = tmp_path / "run", {**said(divergence=policy), "epochs": 8}
    with pytest.raises(ll.TrainingDiverged) as whole:
        ll.run(spec, **long)
    ll.run(spec, **{**long, "callbacks": [Stops()]}, checkpoints=ll.Checkpoints(run, every=1))
    with pytest.raises(ll.TrainingDiverged) as again:
        ll.resume(run, data=arrays(), trust=True)
    assert str(again.value) == str(whole.value)
