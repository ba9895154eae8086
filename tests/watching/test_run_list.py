"""The table of a folder's runs: what state each is in, also where files are damaged, foreign or hostile."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.state.state_files import hash_table
from layered_lr.training.folder_lock import FolderLock
from layered_lr.watching.run_record import read_record
from tests.support import hostile
from tests.support.models import arrays
from tests.support.number_targets import train
from tests.support.run_cases import make_run, net_of
from tests.support.stopping import StopAfter


class Stop(ll.Callback):
    """Ends the run after update 12: as asked, or by an error."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def on_update(self, event: Any) -> None:
        if event.step == 12:
            if self.fails:
                raise ValueError("broken")
            event.run.stop("it is enough")


@pytest.fixture(scope="module")
def made(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ll.Result]:
    base = tmp_path_factory.mktemp("runs")
    result = make_run(base / "whole", 2, epochs=3)
    make_run(base / "deep" / "down" / "enough", 2, epochs=3, callbacks=[Stop(fails=False)])
    with pytest.raises(ll.CallbackError):
        make_run(base / "broken", 2, epochs=3, callbacks=[Stop(fails=True)])
    (base / "foreign").mkdir()
    (base / "foreign" / "metrics.csv").write_text("somebody else's")
    (base / "link").symlink_to(base / "whole")
    return base, result


@pytest.fixture
def base(made: tuple[Path, ll.Result], tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "copy", symlinks=True))


def by_name(base: Path) -> dict[str, ll.RunSummary]:
    return {run.name: run for run in ll.list_runs(base)}


def test_each_run_and_its_state(made: tuple[Path, ll.Result]) -> None:
    found = by_name(made[0])
    assert {name: (run.state, run.updates, run.note) for name, run in found.items()} == {
        "whole": ("finished", 15, ""),
        "deep/down/enough": ("finished", 13, "it is enough"),
        "broken": ("stopped", 13, ""),
    }
    whole, result = found["whole"], made[1]
    assert (whole.backend, whole.total_updates) == ("torch-eager", 15)
    assert whole.best_accuracy == max(result.accuracies) and whole.last_accuracy == result.accuracies[-1]
    assert whole.last_loss == result.losses[-1]


def test_a_run_that_goes_on_now_is_running_and_looking_does_not_disturb_it(base: Path) -> None:
    lock = FolderLock(base / "broken" / "lock")
    assert by_name(base)["broken"].state == "running"
    lock.close()
    assert by_name(base)["broken"].state == "stopped"
    FolderLock(base / "broken" / "lock").close()


def test_a_single_run_has_its_folders_name(base: Path) -> None:
    (only,) = ll.list_runs(base / "whole")
    assert only.name == "whole"


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("layered_lr-run.json", b"{}", "is damaged, so that it is not known what this run is"),
        ("plan.json", b'{"spec": 3}', "is damaged, or is no plan"),
        ("plan.json", b"[" * 10_000, "is damaged, or cannot be read"),
        ("plan.json", None, "is missing"),
        ("metrics.csv", b"step,loss\n", "its columns are not those of the plan's groups"),
        ("metrics.csv", b'step,loss,rate: block00.*,rate: rest\n0,1,1,1\n1,"', ""),
        ("metrics.csv", b"step,loss,rate: block00.*,rate: rest\n0,1,1,1\n7,1,1,1\n", "is damaged from line 3 on"),
        ("metrics.csv", b"step,loss,rate: block00.*,rate: rest\n0,1,1,1\n1,x,1,1\n", "is damaged from line 3 on"),
        ("metrics.csv", b"\x00\xff\xfe\n", "its columns are not those"),
        ("events.jsonl", b"[]\n{\n\x00\n", "3 lines are damaged"),
        ("events.jsonl", b'{"event": "epoch", "step": 5, "accuracy": 0.5}\n{"event": "epo', ""),
    ],
)
def test_what_is_damaged_is_said_in_one_line(base: Path, file: str, content: bytes | None, note: str) -> None:
    path = base / "whole" / file
    path.unlink() if content is None else path.write_bytes(content)
    found = by_name(base)
    assert note in found["whole"].note and "\n" not in found["whole"].note
    is_damaged = bool(note) and file != "events.jsonl"
    assert (found["whole"].state == "damaged") == is_damaged
    assert found["broken"].state == "stopped", "and the others are told of all the same"


def test_whatever_is_damaged_every_run_that_is_there_has_its_row(base: Path) -> None:
    draw, whole, tried = random.Random(0), base / "whole", 0
    (base.parent / "victim.txt").write_text("mine")  # to which some kinds of damage lead
    for place in sorted(whole.iterdir()):
        for damage in hostile.OF_FOLDERS if place.is_dir() else hostile.OF_FILES:
            kept = Path(shutil.copytree(whole, base.parent / "kept", symlinks=True))
            damage(place, draw)
            found = by_name(base)
            assert found["broken"].state == "stopped", "the others are told of all the same"
            assert set(found) - {"whole"} == {"broken", "deep/down/enough"}
            assert "whole" in found or not os.path.lexists(whole / "layered_lr-run.json")
            assert all("\n" not in run.note for run in found.values()) and str(ll.list_runs(base))
            hostile.clear(whole)
            kept.rename(whole)
            tried += 1
    assert tried > 30 and (base.parent / "victim.txt").read_text() == "mine"


def test_a_run_of_a_newer_version_is_named_and_left_as_it_is(base: Path) -> None:
    mark = base / "whole" / "layered_lr-run.json"
    table = json.loads(mark.read_text())
    del table["digest"]
    table |= {"format": "layered_lr.Run 2", "more": [1]}
    mark.write_text(json.dumps({**table, "digest": hash_table(table)}))
    before = {file: file.read_bytes() for file in base.rglob("*") if file.is_file()}
    words = "its format is 'layered_lr.Run 2'; this version reads 'layered_lr.Run 1'"
    assert words in by_name(base)["whole"].note and by_name(base)["broken"].state == "stopped"
    for refused in (
        lambda: ll.resume(base / "whole"),
        lambda: ll.Result.load(base / "whole"),
        lambda: ll.report(base / "whole", base / "r.html"),
        lambda: make_run(base / "whole", 2, epochs=3),
    ):
        with pytest.raises(ll.CheckpointError, match=words):
            refused()
    assert {file: file.read_bytes() for file in base.rglob("*") if file.is_file()} == before


def test_a_fifo_in_the_folder_is_not_waited_for(base: Path) -> None:
    import os

    for name in ("metrics.csv", "events.jsonl"):
        (base / "whole" / name).unlink()
        os.mkfifo(base / "whole" / name)
    assert by_name(base)["whole"].state == "damaged"


def test_nothing_in_a_folder_is_run(base: Path) -> None:
    """A plan that names a function of a module that would leave a trace."""
    (base / "trap.py").write_text(f"import os\nos.mkdir({str(base / 'sprung')!r})\nfactor = abs\n")
    plan = json.loads((base / "whole" / "plan.json").read_text())
    plan["spec"]["schedule"] = {"type": "LambdaLR", "lr_lambda": "trap:factor"}
    (base / "whole" / "plan.json").write_text(json.dumps(plan))
    import sys

    sys.path.append(str(base))
    try:
        assert by_name(base)["whole"].state == "finished"
        text = ll.report(base / "whole", base / "report.html").read_text(encoding="utf-8")
        assert "needs a function of yours" in text and "--trust" in text and not (base / "sprung").exists()
        trusted = ll.report(base / "whole", base / "report.html", trust=True).read_text(encoding="utf-8")
        assert (base / "sprung").exists() and "needs a function of yours" not in trusted
        with pytest.raises(ll.SpecError, match="trust=1"):
            ll.report(base / "whole", trust=1)  # type: ignore[arg-type]
    finally:
        sys.path.remove(str(base))


def test_a_run_that_ended_early_with_its_best_weights_is_finished(base: Path) -> None:
    lines = (base / "broken" / "events.jsonl").read_text().splitlines()
    for last in ("restored", "not restored"):
        ends = [{"event": "stopped", "step": 6, "why": "the loss has not become better"}, {"event": last, "step": 6}]
        text = "".join(f"{line}\n" for line in [*lines, *map(json.dumps, ends)])
        (base / "broken" / "events.jsonl").write_text(text)
        found = by_name(base)["broken"]
        assert found.state == "finished" and found.note == "the loss has not become better"


def test_a_run_that_a_callback_has_stopped_without_a_reason_is_finished(torch: Any, tmp_path: Path) -> None:
    class Ends(ll.Callback):
        def __init__(self, why: Any) -> None:
            self.why = why

        def on_update(self, event: Any) -> None:
            if event.step == 6:
                event.run.stop(*self.why)

    for number, why in enumerate([(), ("",), (None,)]):
        result = make_run(tmp_path / str(number), 2, epochs=3, callbacks=[Ends(why)])
        assert result.events == ({"event": "stopped", "step": 7, "why": "a callback has asked for it"},)
        (found,) = ll.list_runs(tmp_path / str(number))
        assert (found.state, found.updates, found.note) == ("finished", 7, "a callback has asked for it")


@pytest.mark.parametrize("way", ["stopped", "shorter"])
def test_an_accuracy_within_an_epoch_counts_only_where_the_run_ends_there(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    rights = iter([0.1, 0.9, 0.3, 0.2])
    monkeypatch.setattr("layered_lr.training.loop.evaluate", lambda *_, **__: (next(rights), {}))
    first = {"callbacks": [StopAfter(7)]} if way == "stopped" else {"max_steps": 7, "epochs": None}
    make_run(tmp_path / "run", 2, **{"epochs": 2, **first})
    (run,) = ll.list_runs(tmp_path / "run")
    assert (run.best_accuracy, run.last_accuracy) == (0.9, 0.9)
    result = ll.resume(tmp_path / "run", model=net_of(2), data=arrays(), max_steps=10)
    (run,) = ll.list_runs(tmp_path / "run")
    assert result.accuracies.tolist() == [0.1, 0.3] and (run.best_accuracy, run.last_accuracy) == (0.3, 0.3)
    assert read_record(tmp_path / "run").accuracies == {5: 0.1, 10: 0.3}


def test_a_report_of_a_folder_names_the_damaged_runs_and_shows_the_others(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "broken" / "plan.json").unlink()
    text = ll.report(base, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 runs" in text and "Left out" in text and "broken/plan.json: is missing." in text
    assert "a run is left out" in capsys.readouterr().err
    for named in ([base / "broken"], [base, base / "broken"], [base / "broken", base]):
        with pytest.raises(ll.CheckpointError, match=r"broken/plan\.json: is missing"):
            ll.report(named, tmp_path / "no.html")
    for run in ("whole", "deep/down/enough"):
        (base / run / "plan.json").write_text("[")
    with pytest.raises(ll.CheckpointError, match="is missing"):
        ll.report(base, tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_a_run_on_values_has_its_test_losses(torch: Any, tmp_path: Path) -> None:
    result = train("values", epochs=2, checkpoints=tmp_path / "run")
    (run,) = ll.list_runs(tmp_path / "run")
    losses = result.logged["test loss"][:, 1].tolist()
    assert (run.best_test_loss, run.last_test_loss) == (min(losses), losses[-1]) and run.best_accuracy is None
    text = str(ll.list_runs(tmp_path))
    assert "best test loss" in text and f"{min(losses):.4f}" in text and "accuracy" not in text
    assert json.loads(ll.list_runs(tmp_path).to_json())[0]["last_test_loss"] == losses[-1]


def test_accuracies_of_updates_that_are_made_again_do_not_count(base: Path) -> None:
    events = [
        {"event": "epoch", "step": 5, "accuracy": 0.25},
        {"event": "epoch", "step": 10, "accuracy": 0.75},
        {"event": "rolled back", "step": 12, "to": 5},
        {"event": "epoch", "step": 10, "accuracy": 0.5},
        {"event": "epoch", "step": 15, "accuracy": "nan"},
    ]
    (base / "whole" / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    whole = by_name(base)["whole"]
    assert (whole.best_accuracy, whole.last_accuracy) == (0.5, 0.5)


def test_the_command_prints_a_table_and_json(made: tuple[Path, ll.Result], call: Any, refused: Any) -> None:
    answer = call("runs", str(made[0]))
    assert answer.code == 0 and "deep/down/enough  finished" in answer.out and "13 of 15" in answer.out
    as_json = json.loads(call("runs", str(made[0]), "--json").out)
    assert [run["name"] for run in as_json] == ["broken", "deep/down/enough", "whole"]
    refused(call("runs", str(made[0] / "nowhere")), "nowhere: cannot be read: No such file or directory")
    assert "holds no run" in call("runs", str(made[0] / "foreign")).out


def test_the_command_writes_a_report(made: tuple[Path, ll.Result], call: Any, refused: Any, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    answer = call("report", str(made[0] / "whole"), "-o", str(page))
    assert answer.code == 0 and answer.out == f"written: {page}\n" and "Run whole" in page.read_text()
    refused(call("report", str(made[0] / "foreign")), "foreign: holds no run")
    refused(call("report", str(made[0] / "whole"), "-o", str(tmp_path / "report.txt")), "must end in .html")
    refused(call("report"), "RUN")


def test_of_a_long_run_only_the_end_is_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a small file takes as damage in its middle is not even read in a large one; the end is right."""
    from layered_lr.watching import metrics_file

    path = base / "whole" / "metrics.csv"
    header, *rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"damaged\n" * 100 + b"".join(rows[3:]))
    assert by_name(base)["whole"].state == "damaged"
    monkeypatch.setattr(metrics_file, "_LARGE", 10)
    monkeypatch.setattr(metrics_file, "_TAIL", sum(map(len, rows[8:])))
    whole = by_name(base)["whole"]
    assert (whole.state, whole.updates, whole.last_loss) == ("finished", 15, float(rows[-1].split(b",")[1]))


@pytest.mark.parametrize("runs", [3, None, [], [3], b"x", ["a\0b"]], ids=repr)
def test_what_is_no_run_is_refused(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(ll.SpecError):
        ll.report(runs, tmp_path / "report.html")
