"""The folder of a run: one writer at a time, and nothing lost by a kill."""

import csv
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layered_lr.errors import CheckpointError, SpecError
from layered_lr.training.cadence import cadence
from layered_lr.training.run_folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from layered_lr.training.run_folder import RunFolder
from layered_lr.training.cadence import cadence
folder = RunFolder(Path(sys.argv[1]))
folder.begin_metrics(["loss"], [])
folder.add_metrics([(0, 0.1), (1, 0.2)])
print("held", flush=True)
time.sleep(60)
"""


def test_two_runs_in_one_folder_are_refused_and_a_dead_ones_lock_is_none(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"process {holder.pid} on .* is writing there"):
            RunFolder(tmp_path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with RunFolder(tmp_path) as folder:
        with pytest.raises(CheckpointError, match="is writing there"):
            RunFolder(tmp_path)
        assert not folder.holds_a_run
    RunFolder(tmp_path).close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,loss", "0,0.1", "1,0.2"]


def test_metrics_are_written_anew_where_a_run_goes_on(tmp_path: Path) -> None:
    columns = ["loss", "rate of a, b"]
    rows = [(step, step / 3, 1e-300) for step in range(5)]
    with RunFolder(tmp_path) as folder:
        folder.begin_metrics(columns, [])
        folder.add_metrics(rows)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,0.12")  # a row that was cut off
    with RunFolder(tmp_path) as folder:
        assert folder.begin_metrics(columns, rows[:3]), "what comes after the checkpoint is no damage"
        folder.add_metrics([(3, -1.0, float("nan"))])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["step", "loss", "rate of a, b"]
    assert [int(row[0]) for row in found] == [0, 1, 2, 3]
    assert [float(row[1]) for row in found] == [0.0, 1 / 3, 2 / 3, -1.0]
    (tmp_path / "metrics.csv").write_bytes((tmp_path / "metrics.csv").read_bytes().replace(b"0.6", b"\xff.6"))
    with RunFolder(tmp_path) as folder:
        assert not folder.begin_metrics(columns, rows[:4])
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 5


def test_events_are_lines_of_json(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.event("epoch", epoch=1, accuracy=0.5)
        folder.event("größe", name="ü")
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["epoch", "größe"]


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be used as the run's folder"):
        RunFolder(tmp_path / "file" / "run")


def test_rows_that_a_full_disk_cuts_off_are_not_there_and_closing_is_no_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunFolder(tmp_path) as folder:
        folder.begin_metrics(["loss"], [])
        folder.add_metrics([(0, 0.5)])
        folder.event("begun")
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
        try:
            with pytest.raises(CheckpointError, match="File too large"):
                folder.add_metrics([(step, step / 3) for step in range(1, 9)])
            with pytest.raises(CheckpointError, match="File too large"):
                folder.event("more than there is room for")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / "metrics.csv").read_text().split() == ["step,loss", "0,0.5"]
        folder.add_metrics([(1, 0.25)])
        folder.event("went on")
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,loss", "0,0.5", "1,0.25"]
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begun", "went on"]


def test_an_event_after_one_that_a_kill_cut_off_has_a_line_of_its_own(tmp_path: Path) -> None:
    RunFolder(tmp_path).close()
    (tmp_path / "events.jsonl").write_text('{"event": "epo')
    with RunFolder(tmp_path) as folder:
        folder.event("resumed")
    assert json.loads((tmp_path / "events.jsonl").read_text().splitlines()[1]) == {"event": "resumed"}


def test_a_bare_number_is_a_cadence_of_updates_on_the_command_line_too() -> None:
    assert cadence("5") == cadence(5) == cadence("5 steps")
    for value in ("0", "1.5", "-3", ""):
        with pytest.raises(SpecError, match="must be a time, such as '1 epoch'"):
            cadence(value)
