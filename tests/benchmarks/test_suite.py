"""``layered-lr bench``, RESULTS.md and the tables of docs/measured.md."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layered_lr.cli
from benchmarks import suite
from benchmarks.documents import (
    BEGIN,
    END,
    IN_SHORT,
    MEASURED,
    PAGE,
    README,
    TRANSLATION,
    measured_part,
    renewed,
    reports,
    results_text,
    short_part,
    speed_part,
)
from benchmarks.frame.report import Report, Series, Target


def test_results_and_the_page_are_those_of_the_files() -> None:
    found = reports()
    assert PAGE.read_text(encoding="utf-8") == results_text(found), "renew it: python -m benchmarks.documents"
    parts = ((MEASURED, measured_part(found)), (README, short_part(found)), (TRANSLATION, speed_part(found)))
    for page, part in parts:
        text = page.read_text(encoding="utf-8")
        assert renewed(text, part) == text, "renew it: python -m benchmarks.documents"


def test_every_figure_that_readme_names_is_measured() -> None:
    assert [name for name in IN_SHORT if name not in short_part(reports())] == []


def test_no_figure_is_of_a_quick_run() -> None:
    assert not [report.name for report in reports() if report.about["quick"]]


def test_the_page_shows_the_backends_first_and_every_target() -> None:
    backends = Report("backends", "?", (Series("torch-eager", "time of a step", "s", (0.5,)),))
    overhead = Report("overhead", "?", (Series("ll.run", "overhead of a step", "µs", (40.0,), Target(50)),))
    part = measured_part([backends, overhead])
    assert "`torch-eager`" in part.splitlines()[0] and "500 ms" in part.splitlines()[2]
    assert "| `overhead`  | ll.run, overhead of a step | 40.0 µs" in part and "reached" in part
    part = measured_part([overhead])
    assert renewed(f"a\n{BEGIN}\nold\n{END}\nb", part) == f"a\n{BEGIN}\n{part}\n{END}\nb"
    assert "make bench" in measured_part([])


@pytest.mark.parametrize("name", suite.MODULES)
def test_every_benchmark_has_a_name_a_question_and_a_script(name: str) -> None:
    benchmark = suite.load(name)
    assert benchmark.name == name and benchmark.question.endswith("?") and benchmark.rounds >= 3
    module = importlib.import_module(suite.MODULES[name])
    assert f"python -m benchmarks.{name}" in (module.__doc__ or "")


def test_list_names_all(call: Any) -> None:
    answer = call("bench", "--list")
    assert answer.code == 0 and [line.split()[0] for line in answer.out.splitlines()] == list(suite.MODULES)


def test_an_unknown_name_is_refused_before_anything_runs(call: Any, refused: Callable[..., None]) -> None:
    refused(call("bench", "gpu", "hand-lop", "--quick"), "no benchmark 'hand-lop'. Did you mean 'hand_loop'?")


def test_without_a_checkout_it_says_so(
    call: Any, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(layered_lr.cli, "__file__", str(tmp_path / "site" / "layered_lr" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    refused(call("bench"), "part of the source checkout")


def test_it_is_found_in_a_trusted_current_folder(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layered_lr.cli, "__file__", str(tmp_path / "site" / "layered_lr" / "cli.py"))
    monkeypatch.chdir(PAGE.parents[1])
    assert call("bench", "--list").code == 2
    assert call("bench", "--list", "--trust").code == 0


def test_each_runs_in_a_process_of_its_own_and_one_that_fails_fails_the_command(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    class Done:
        def __init__(self, code: int) -> None:
            self.returncode = code

    def run(words: list[str], **_: Any) -> Done:
        seen.append(words[2:])
        return Done(int(words[2] == "benchmarks.groups"))

    monkeypatch.setattr(suite.subprocess, "run", run)
    assert call("bench", "gpu", "growth", "--rounds", "7").code == 0
    assert seen == [["benchmarks.gpu", "--rounds", "7"], ["benchmarks.growth", "--rounds", "7"]]
    seen.clear()
    answer = call("bench", "--quick")
    assert answer.code == 1 and "failed: groups" in answer.err
    assert seen == [[f"benchmarks.{name}", "--quick"] for name in suite.MADE_BY_MAKE]
