"""Logs of a run: every row is what the result says, a run that goes on continues its log, wrong places are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.run_logs import KINDS, SPEC, assert_log_of, place, read, said, words


@pytest.fixture(scope="module")
def logged(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[ll.Result, Path]:
    """A run with every log, from 10 updates of two epochs, and its folder."""
    folder = tmp_path_factory.mktemp("logged")
    callbacks = [
        ll.CSV(folder / "log.csv"),
        ll.JSONLines(folder / "log.jsonl"),
        ll.TensorBoard(folder / "board", histograms=True, wrong_answers=3),
    ]
    return ll.run(SPEC, **said(callbacks=callbacks)), folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_says_what_the_result_says(kind: str, logged: tuple[ll.Result, Path]) -> None:
    assert_log_of(logged[0], kind, logged[1])


def test_a_board_shows_norms_histograms_and_wrong_answers(logged: tuple[ll.Result, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, folder = logged
    board = EventAccumulator(str(folder / "board"))
    board.Reload()
    (*_, last) = board.Scalars("weight_norm/head")
    flat = np.concatenate([result.weights[f"head.{name}"].ravel() for name in ("weight", "bias")]).astype(np.float64)
    assert last.step == 9 and last.value == np.float32(np.linalg.norm(flat))
    (*_, drawn) = board.Histograms("weights/head")
    assert drawn.histogram_value.num == flat.size == sum(drawn.histogram_value.bucket)
    assert drawn.histogram_value.min == flat.min() and drawn.histogram_value.max == flat.max()
    pictures = board.Images("wrong_answers/1")
    assert pictures and pictures[-1].encoded_image_string.startswith(b"\x89PNG")
    said_of_them = board.Tensors("wrong_answers")[-1].tensor_proto.string_val[0].decode()
    wrong = [line.split("|") for line in said_of_them.splitlines()[2:]]
    assert 0 < len(wrong) <= 3 and all(label.strip() != answer.strip() for _, _, label, answer, _ in wrong)


def test_logging_changes_nothing_of_the_training(logged: tuple[ll.Result, Path]) -> None:
    plain = ll.run(SPEC, **said())
    np.testing.assert_array_equal(plain.losses, logged[0].losses)
    assert not len(plain.grad_norms), "and nothing is measured where nobody asks"
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(array, logged[0].weights[name])


class Break(ll.Callback):
    def on_update(self, event: Any) -> None:
        if event.step == 6:
            raise ValueError("broken")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_continues_the_log(kind: str, torch: Any, tmp_path: Path, logged: Any) -> None:
    """It broke after 7 updates, with checkpoints at each epoch's end and where it broke; then rows are torn off."""
    log = [f"{kind}:{place(kind, tmp_path)}"]
    with pytest.raises(ll.CallbackError, match="callback Break raised ValueError in on_update: broken"):
        ll.run(SPEC, **said(log=log, callbacks=[Break()], checkpoints=tmp_path / "run"))
    if kind != "tensorboard":
        torn = place(kind, tmp_path)
        torn.write_bytes(torn.read_bytes()[:-40])
    result = ll.resume(tmp_path / "run", trust=True, model=said()["model"], data=said()["data"])
    np.testing.assert_array_equal(result.losses, logged[0].losses)
    assert_log_of(result, kind, tmp_path)
    if kind == "csv":
        assert place(kind, tmp_path).read_bytes() == place(kind, logged[1]).read_bytes()


def test_a_log_begun_on_going_on_has_the_whole_run(torch: Any, tmp_path: Path) -> None:
    ll.run(SPEC, **said(epochs=1, divergence="skip", checkpoints=tmp_path / "run"))
    again = {name: said()[name] for name in ("model", "data")}
    result = ll.resume(tmp_path / "run", epochs=2, log=words(tmp_path), **again)
    for kind in KINDS:
        assert_log_of(result, kind, tmp_path)


def test_a_folder_may_not_name_a_log_without_trust(torch: Any, tmp_path: Path) -> None:
    ll.run(SPEC, **said(epochs=1, log=f"csv:{tmp_path / 'log.csv'}", checkpoints=tmp_path / "run"))
    again = {name: said()[name] for name in ("model", "data")}
    with pytest.raises(ll.SpecError, match=r"log=.*a file names a place to write to.*--trust"):
        ll.resume(tmp_path / "run", epochs=2, **again)
    assert len(ll.resume(tmp_path / "run", epochs=2, log=(), **again).losses) == 10


def test_a_log_holds_what_callbacks_log(torch: Any, tmp_path: Path) -> None:
    class Note(ll.Callback):
        def on_epoch(self, event: Any) -> None:
            event.run.log(mine=float(event.epoch))

    ll.run(SPEC, **said(log=words(tmp_path), callbacks=[Note()]))
    for kind in ("jsonl", "tensorboard"):
        assert read(kind, tmp_path)["logged/mine"] == {4: 0.0, 9: 1.0}


def test_a_csv_has_a_column_of_each_metric_also_after_a_stop(torch: Any, tmp_path: Path) -> None:
    def largest(outputs: Any, targets: Any) -> float:
        return float(outputs.max())

    given = said(metrics={"largest": largest}, ema_decay=0.5)
    whole = ll.run(SPEC, **given, callbacks=[ll.CSV(tmp_path / "whole.csv", grad_norms=False)])
    with pytest.raises(ll.CallbackError, match="broken"):
        ll.run(SPEC, **given, callbacks=[Break()], checkpoints=tmp_path / "run")
    again = {name: given[name] for name in ("model", "data", "metrics")}
    log = ll.CSV(tmp_path / "log.csv", grad_norms=False)
    resumed = ll.resume(tmp_path / "run", trust=True, callbacks=[log], **again)
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    for name in ("largest", "ema largest"):
        column = read("csv", tmp_path)[f"logged/{name}"]
        assert column == {int(updates) - 1: number for updates, number in whole.logged[name].tolist()}
        assert len(column) == 2 and whole.logged[name].tolist() == resumed.logged[name].tolist()


@pytest.mark.parametrize("is_first", [True, False], ids=["before the log", "after the log"])
def test_lines_of_logged_numbers_have_their_order_also_after_a_stop(torch: Any, tmp_path: Path, is_first: bool) -> None:
    """Each follows the line of its update, and the names come in the order in which the run began to log them."""

    class Notes(ll.Callback):
        def on_update(self, event: Any) -> None:
            event.run.log(zeta=1.0, beta=float(event.step))

        def on_epoch(self, event: Any) -> None:
            event.run.log(alpha=float(event.epoch))

    given = said(metrics={"largest": lambda outputs, targets: float(outputs.max())})

    def listeners(name: str) -> list[ll.Callback]:
        found = [Notes(), ll.JSONLines(tmp_path / f"{name}.jsonl")]
        return found if is_first else found[::-1]

    whole = ll.run(SPEC, **given, callbacks=listeners("whole"), checkpoints=tmp_path / "whole")
    with pytest.raises(ll.CallbackError, match="broken"):
        ll.run(SPEC, **given, callbacks=[*listeners("run"), Break()], checkpoints=tmp_path / "run")
    again = {name: given[name] for name in ("model", "data", "metrics")}
    resumed = ll.resume(tmp_path / "run", trust=True, callbacks=listeners("run"), **again)
    steps = [json.loads(line)["step"] for line in (tmp_path / "whole.jsonl").read_text().splitlines()[1:]]
    assert steps == sorted(steps) and len(steps) == 10 + 2 * 10 + 2 * 2
    assert (tmp_path / "run.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "run" / "logged.csv").read_bytes() == (tmp_path / "whole" / "logged.csv").read_bytes()
    for found in (whole, resumed, ll.Result.load(tmp_path / "run")):
        assert list(found.logged) == ["zeta", "beta", "largest", "alpha"]


def test_a_new_run_takes_the_place_of_the_log_before(torch: Any, tmp_path: Path) -> None:
    ll.run(SPEC, **said(log=words(tmp_path), seed=3))
    result = ll.run(SPEC, **said(log=words(tmp_path), epochs=1))
    for kind in KINDS:
        assert_log_of(result, kind, tmp_path)


def test_a_rollback_takes_rows_back(torch: Any, tmp_path: Path) -> None:
    """Images of NaN at update 7 send the run back to update 5 (the checkpoint of the first epoch), once."""

    class Spoil(ll.Callback):
        done = False

        def on_batch(self, event: Any) -> None:
            if event.step == 7 and not self.done:
                self.done = True
                event.images = event.images * np.float32(np.nan)

    callbacks = [Spoil()]
    chosen = said(log=words(tmp_path), callbacks=callbacks, divergence="rollback", checkpoints=tmp_path / "run")
    result = ll.run(SPEC, **chosen)
    assert any(event["event"] == "rolled back" for event in result.events)
    for kind in KINDS:
        assert_log_of(result, kind, tmp_path)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("tensorbord:x", "Did you mean 'tensorboard'"),
        ("tensorboard", "says no place. Write tensorboard:FOLDER"),
        ("csv:", "says no place. Write csv:FILE"),
        ("csv:no/such/folder/log.csv", "must be a file in a folder that exists"),
        ("jsonl:theirs", "there is a file that this library has not written"),
        ("csv:theirs", "there is a file that this library has not written"),
        ("tensorboard:theirs", "is no folder"),
        ("tensorboard:board", "event files of another program"),
        (3, "must be a list of csv:FILE"),
        ([3], "must be one of csv:FILE"),
        (["csv:a", "csv:a"], "given twice"),
        ("csv:a\0b", "NUL"),
    ],
)
def test_a_wrong_log_is_refused(log: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").write_text("a diary")
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "events.out.tfevents.1.host.1.0").write_bytes(b"")
    with pytest.raises(ll.SpecError, match=message):
        ll.run(SPEC, log=log)
    assert (tmp_path / "theirs").read_text() == "a diary"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"log": ["jsonl:run/events.jsonl"]}, "the log JSONLines: .* is one of the files that the run keeps"),
        ({"log": ["csv:run/metrics.csv"]}, "the log CSV: .* is one of the files that the run keeps"),
        ({"log": ["csv:run/../run/logged.csv"]}, "is one of the files that the run keeps"),
        ({"log": ["csv:run/checkpoints/log.csv"]}, "is one of the files that the run keeps"),
        ({"save": "run/recipe.toml"}, "save: 'run/recipe.toml' is one of the files that the run keeps"),
        ({"save": "a.csv", "log": ["csv:a.csv"]}, "the log CSV: .* is the file of save too"),
        ({"log": ["csv:a", "jsonl:a"]}, "the log JSONLines: .* is the file of the log CSV too"),
        ({"log": ["csv:a", "csv:./a"]}, "the log CSV: .* is the file of the log CSV too"),
        ({"save": "new", "checkpoints": "new"}, "save: 'new' is a file, and the run's folder is 'new'"),
        ({"save": "new", "checkpoints": "new/run"}, "save: 'new' is a file, and the run's folder is 'new/run'"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_two_outputs_in_one_place_are_refused_before_the_training(
    given: dict[str, Any],
    message: str,
    dry_run: bool,
    torch: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ll.SpecError, match=message):
        ll.run(SPEC, **{"checkpoints": "run", "dry_run": dry_run, **given})
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoints"]


def test_a_logger_and_a_word_for_the_same_file_are_refused(torch: Any, tmp_path: Path) -> None:
    with pytest.raises(ll.SpecError, match="is the file of the log CSV too"):
        ll.run(SPEC, callbacks=[ll.CSV(tmp_path / "a.csv")], log=[f"csv:{tmp_path / 'a.csv'}"])


def test_a_run_that_goes_on_refuses_its_own_files_too(torch: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ll.run(SPEC, **said(checkpoints=run, epochs=1))
    (run / "report.txt").unlink()
    with pytest.raises(ll.SpecError, match="is one of the files that the run keeps"):
        ll.resume(run, data=said()["data"], epochs=2, trust=True, log=[f"csv:{run / 'report.txt'}"])
    assert not (run / "report.txt").exists() and not (run / "checkpoints" / "step-00000010").exists()


def test_a_logger_that_cannot_write_is_named_and_the_state_is_safe(torch: Any, tmp_path: Path) -> None:
    class Steal(ll.Callback):
        """Puts a folder where the log is to be, before the log is opened."""

        def on_begin(self, event: Any) -> None:
            (tmp_path / "log.csv").mkdir()

    callbacks = [Steal(), ll.CSV(tmp_path / "log.csv")]
    with pytest.raises(ll.CallbackError, match="callback CSV raised SpecError in on_begin: CSV: path=") as caught:
        ll.run(SPEC, **said(callbacks=callbacks, checkpoints=tmp_path / "run"))
    assert "To go on: layered-lr resume" in str(caught.value)
    again = {name: said()[name] for name in ("model", "data")}
    assert len(ll.resume(tmp_path / "run", **again).losses) == 10


def test_a_tool_that_is_missing_is_said() -> None:
    for name, make in (("wandb", lambda: ll.WandB("p")), ("mlflow", lambda: ll.MLflow("p"))):
        try:
            __import__(name)
        except ImportError:
            with pytest.raises(ll.ToolUnavailable, match=f"{name} is not installed.*pip install"):
                make()


def test_odd_images_can_be_shown() -> None:
    from layered_lr.training.loggers.tensorboard import pixels_of

    assert pixels_of(np.zeros((4, 5, 1), np.uint8)).shape == (4, 5, 3)
    shown = pixels_of(np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4))
    assert shown.shape == (3, 4, 3) and shown.dtype == np.uint8
    assert pixels_of(np.full((3, 2, 2), np.nan, np.float32)).tolist() == np.zeros((2, 2, 3)).tolist()


def test_wrong_answers_are_said_by_the_names_of_their_classes(torch: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tests.support.models import arrays

    data = ll.Dataset("named", *arrays(), class_names=("a|cat", "dog", "cow"))
    ll.run(SPEC, **said(data=data, epochs=1, callbacks=[ll.TensorBoard(tmp_path / "board")]))
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    text = board.Tensors("wrong_answers")[0].tensor_proto.string_val[0].decode()
    cells = {cell for line in text.splitlines()[2:] for cell in line.strip("| ").split(" | ")[1:]}
    assert cells and cells <= {"a\\|cat", "dog", "cow"}


def log_alone(backend: str, folder: str) -> None:
    """Log a run in a process of its own."""
    from tests.support import run_logs

    run_logs.check_logs(backend, folder)


def test_oneflow_has_the_same_logs(oneflow: Any, tmp_path: Path) -> None:
    value_of(log_alone, "oneflow-graph", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "log.csv", "log.jsonl"]


WITHOUT_TORCH = """
import sys
from pathlib import Path
from layered_lr.training.loggers.event_files import EventFile, last_step_of
file = EventFile(Path(sys.argv[1]), 0)
file.add_numbers(3, {"loss": 0.5})
file.add_text(3, "said", "something")
file.close()
print(last_step_of(Path(sys.argv[1]), "loss"), sorted({"torch", "tensorflow"} & set(sys.modules)))
"""


def test_event_files_need_no_framework(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 []\n"), done.stderr
