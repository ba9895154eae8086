"""What a benchmark says of its rounds."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.frame.command import Asked, main, measured, perform, written
from benchmarks.frame.pictures import draw
from benchmarks.frame.report import Curve, Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.tables import markdown, number, pivot, targets, text
from benchmarks.frame.worker import Worker, WorkerError


def of(*rounds: float) -> Ratio:
    return Ratio("one / other", "time", rounds)


@pytest.mark.parametrize(
    ("rounds", "verdict"),
    [
        pytest.param((0.9, 1.02, 0.95), "no difference (within noise)", id="both-sides"),
        pytest.param((0.8, 0.9, 1.0), "no difference (within noise)", id="touches"),
        pytest.param((0.98, 0.97, 0.99, 0.98, 0.98), "2.0% less", id="small-but-sure"),
        pytest.param((1.2, 1.1, 1.3), "20.0% more", id="more"),
        pytest.param((10.0, 11.0, 12.5), "11 times as much", id="times"),
        pytest.param((0.5, 0.5), "too few rounds to tell", id="two"),
        pytest.param((0.5,), "too few rounds to tell", id="one"),
    ],
)
def test_a_difference_is_one_only_where_all_rounds_agree(rounds: tuple[float, ...], verdict: str) -> None:
    assert of(*rounds).verdict == verdict


@pytest.mark.parametrize(
    ("target", "rounds", "verdict"),
    [
        (Target(1.01), (0.9, 1.0, 1.005), "reached"),
        (Target(1.01), (0.9, 1.01, 1.05), "reached (within noise of the target)"),
        (Target(1.01), (1.0, 1.02, 1.05), "not reached (within noise of the target)"),
        (Target(1.01), (1.02, 1.03, 1.05), "not reached"),
        (Target(1.01), (0.5,), "reached (too few rounds to tell)"),
        (Target(10, at_most=False), (12.0, 11.0, 13.0), "reached"),
        (Target(10, at_most=False), (2.0, 3.0, 4.0), "not reached"),
    ],
    ids=["below", "at", "above", "far-above", "one-round", "rate", "low-rate"],
)
def test_targets(target: Target, rounds: tuple[float, ...], verdict: str) -> None:
    assert target.verdict(of(*rounds)) == verdict


def test_a_ratio_is_taken_round_by_round() -> None:
    """A machine that becomes twice as slow in mid-run changes no ratio."""
    one, other = Series("a", "time", "s", (2.0, 4.0, 8.0)), Series("b", "time", "s", (1.0, 2.0, 4.0, 9.0))
    found = ratio(one, other)
    assert found.rounds == (2.0, 2.0, 2.0) and found.name == "a / b" and found.median == 2.0


def test_opponents_take_turns_and_the_first_one_changes() -> None:
    calls: list[str] = []
    taken = alternated({name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}, 3, warm_up=1)  # type: ignore[func-returns-value]
    assert "".join(calls) == "cab" + "abc" + "bca" + "cab"
    assert taken.values == {"a": [4, 9, 11], "b": [5, 7, 12], "c": [6, 8, 10]} and taken.failed == {}


def test_an_opponent_that_fails_is_left_out_and_says_why() -> None:
    calls: list[str] = []

    def fails() -> int:
        calls.append("fails")
        raise ValueError("no such thing\nas this")

    taken = alternated({"good": lambda: 1, "bad": fails}, 2)
    assert taken.values == {"good": [1, 1]} and taken.failed == {"bad": "ValueError: no such thing"}
    assert calls == ["fails"]


def test_the_slope_is_that_of_the_large_sizes() -> None:
    sizes = (1e2, 1e3, 1e4, 1e5)
    constant_first = Curve("run", "steps", "time", "s", sizes, tuple((0.5 + 1e-3 * x,) for x in sizes), Target(1.1))
    assert 0.8 < constant_first.slope < 1.0 and constant_first.verdict == "reached"
    squared = Curve("run", "steps", "time", "s", sizes, tuple((x * x, x * x, 9 * x * x) for x in sizes), Target(1.1))
    assert squared.slope == pytest.approx(2) and squared.verdict == "not reached"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.0, "1.00"), (0.123456, "0.123"), (1234.5, "1,234"), (2e-7, "2.00e-07"), (-3.14159, "-3.14")],
    ids=str,
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


ABOUT = {
    "command": "python -m benchmarks.made_up --rounds 3",
    "rounds": 3,
    "quick": False,
    "seconds": 1.5,
    "machine": {"processor": "P", "cores": 2, "memory_gb": 8.0, "governor": "not known", "load_before": 0.1},
    "versions": {"python": "3.10"},
}
REPORT = Report(
    "made_up",
    "Which is faster?",
    series=(
        Series("a", "time", "s", (0.1, 0.2, 0.3), note="as it comes"),
        Series("b", "time", "s", (1.0, 1.0, 1.0)),
        Series("a", "overhead", "µs", (60.0, 70.0, 80.0), Target(50)),
    ),
    ratios=(Ratio("a / b", "time", (0.1, 0.2, 0.3), Target(0.5)),),
    curves=(Curve("a", "steps", "time", "s", (10.0, 100.0), ((1.0,), (10.0, 11.0, 12.0)), Target(1.1)),),
    missing={"c": "not installed"},
    notes=("All alone.",),
    about=ABOUT,
)


def test_a_report_is_what_its_file_says(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "made_up.json")
    assert Report.read(tmp_path / "made_up.json") == REPORT
    found = json.loads((tmp_path / "made_up.json").read_text())
    (first, *_), (only,) = found["series"], found["ratios"]
    assert (first["min"], first["median"], first["max"], first["rounds"]) == (0.1, 0.2, 0.3, [0.1, 0.2, 0.3])
    assert only["verdict"] == "80.0% less" and only["reached"] == "reached"
    assert found["about"]["command"] == ABOUT["command"] and found["curves"][0]["slope"] == pytest.approx(1.0414, 1e-3)


def test_tables_say_what_was_found() -> None:
    for shown in (text(REPORT), markdown(REPORT)):
        for words in ("Which is faster?", "200", "ms", "80.0% less", "not reached", "not installed", "All alone."):
            assert words in shown
    assert "![made_up](results/made_up.svg)" in markdown(REPORT) and ABOUT["command"] in markdown(REPORT)
    assert "| 200 (100 to 300) ms | 1.00 s |" in " ".join(pivot(REPORT).split())
    shown = " ".join(targets([REPORT]).split())
    assert "| `made_up` | a, overhead | 70.0 (60.0 to 80.0) µs | <= 50 | not reached |" in shown
    assert "| `made_up` | a / b, time | 0.200 (0.100 to 0.300) | <= 0.5 | reached |" in shown


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        assert draw(REPORT, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in (tmp_path / "one.svg").read_bytes()


class MadeUp:
    name, question, rounds = "made_up", "Which is faster?", 4

    def __init__(self) -> None:
        self.asked: list[tuple[int, bool]] = []

    def run(self, rounds: int, quick: bool) -> Report:
        self.asked.append((rounds, quick))
        return Report(self.name, self.question, (Series("a", "time", "s", (1.0,) * rounds),))


def test_a_report_says_what_it_was_taken_on() -> None:
    made_up = MadeUp()
    about = measured(made_up, Asked()).about
    assert about["rounds"] == 4 and about["command"] == "python -m benchmarks.made_up --rounds 4"
    assert about["machine"]["cores"] >= 1 and about["versions"]["layered-lr"] and about["quick"] is False
    measured(made_up, Asked(quick=True))
    measured(made_up, Asked(rounds=9, quick=True))
    assert made_up.asked == [(4, False), (1, True), (9, True)]


def test_a_quick_run_overwrites_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("benchmarks.frame.command.RESULTS", tmp_path)
    perform(MadeUp(), Asked(quick=True))
    assert list(tmp_path.iterdir()) == []
    perform(MadeUp(), Asked(quick=True, out=tmp_path / "new"))
    assert (tmp_path / "new" / "made_up.json").exists()
    perform(MadeUp(), Asked())
    assert (tmp_path / "made_up.json").exists() and "Which is faster?" in capsys.readouterr().out


def test_what_cannot_be_measured_here_overwrites_nothing(tmp_path: Path) -> None:
    skipped = Report("made_up", "Which is faster?", notes=("skipped: no GPU",))
    assert written(skipped, Asked(out=tmp_path)) == [tmp_path / "made_up.json"]
    assert skipped.skipped and text(skipped).endswith("skipped: no GPU") and "skipped" in markdown(skipped)
    REPORT.write(tmp_path / "made_up.json")
    assert written(skipped, Asked(out=tmp_path)) == []
    assert Report.read(tmp_path / "made_up.json") == REPORT


def test_the_command_of_a_benchmark_refuses_no_rounds(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(MadeUp(), ["--rounds", "0"])
    assert end.value.code == 2 and "no whole number of rounds" in capsys.readouterr().err


def test_workers_answer_and_say_what_went_wrong() -> None:
    with Worker("fractions:Fraction", {"numerator": 6, "denominator": 4}) as worker:
        answer = worker.call("as_integer_ratio")
        assert answer.value == [3, 2] and answer.seconds >= 0
        with pytest.raises(WorkerError, match=r"AttributeError: .*no_such"):
            worker.call("no_such")
        assert worker.call("as_integer_ratio").value == [3, 2]
    with pytest.raises(WorkerError, match="ModuleNotFoundError: No module named 'no_such_framework'"):
        Worker("no_such_framework:Opponent", {})
    with Worker("fractions:Fraction", {}) as worker:
        worker._process.kill()
        with pytest.raises(WorkerError, match="its process died"):
            worker.call("as_integer_ratio")


def test_a_worker_stands_still_between_calls() -> None:
    with Worker("fractions:Fraction", {}) as worker:
        worker.call("as_integer_ratio")
        status = Path(f"/proc/{worker._process.pid}/stat").read_text()
        assert status.rpartition(")")[2].split()[0] == "T"


class Resting:
    """An opponent for the test below, in a process of its own."""

    def __init__(self) -> None:
        self.rests = 0

    def rest(self) -> None:
        self.rests += 1

    def count(self) -> int:
        return self.rests

    def fail(self) -> None:
        raise ValueError("no")


def test_an_opponent_rests_after_each_call_that_failed_too() -> None:
    with Worker("tests.benchmarks.test_frame:Resting", {}) as worker:
        begun = worker.call("count").value
        with pytest.raises(WorkerError, match="ValueError: no"):
            worker.call("fail")
        assert worker.call("count").value == begun + 2
