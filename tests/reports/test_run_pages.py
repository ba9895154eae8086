"""The reports of runs in a browser: everything fits, however many runs and groups there are; names are escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from tests.support.browser import chromium, measured, printed
from tests.support.drawn_texts import SMALLEST_PIXELS, check_texts
from tests.support.run_cases import make_run

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow

WIDTHS = (390, 1280)
CASES = {"1 group": 1, "12 groups": 12, "60 groups": 60, "2 runs": 2, "12 runs": 12}
BETWEEN = {"12 groups", "2 runs"}  # cases that are smaller than others and larger than the smallest
EVIL = "<img src=x onerror=alert(1)>&$x$ \x1b[2J"


@pytest.fixture(scope="module")
def folder(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 1, 12 and 60 groups, and ten more of two groups, one of which has a name of somebody malicious."""
    base = tmp_path_factory.mktemp("runs")
    for count in (1, 12, 60):
        make_run(base / f"groups-{count}", count)
    for number in range(9):
        make_run(base / f"more-{number}", 2, lr=0.01 * (number + 1), epochs=3, seed=number % 3)
    return base


def runs_of(case: str, base: Path) -> list[Path]:
    if case.endswith(("group", "groups")):
        return [base / f"groups-{CASES[case]}"]
    return sorted(path for path in base.iterdir() if path.is_dir())[: CASES[case]]


@pytest.fixture(scope="module")
def page_of(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A case -> its page, which is made once."""

    @cache
    def of(case: str) -> Path:
        return ll.report(runs_of(case, folder), tmp_path_factory.mktemp("page") / "report.html")

    return of


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.exhaustive] * (case in BETWEEN)) for case in CASES]
)
def test_everything_fits_the_screen_and_can_be_read(page_of: Any, case: str, tmp_path: Path) -> None:
    chromium()
    for width, found in measured(page_of(case), WIDTHS, tmp_path).items():
        assert found["client_width"] == width
        assert found["scroll_width"] <= width, "the page is wider than the screen"
        assert found["overflowing"] == [], "something is wider than its box, and cut or scrolled"
        assert found["smallest_font"] >= SMALLEST_PIXELS
        assert len(found["svgs"]) >= 4
        for drawing in found["svgs"]:
            check_texts(drawing)


def test_a_printed_report_is_a_few_pages(page_of: Any, tmp_path: Path) -> None:
    chromium()
    pdf = printed(page_of("12 runs"), tmp_path)
    assert pdf.startswith(b"%PDF") and 1 <= pdf.count(b"/Type /Page\n") <= 5


def test_a_page_refers_to_nothing_and_has_no_script(page_of: Any) -> None:
    text = page_of("12 runs").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|\bsrc=|https?://|url\((?!#)|@import|javascript:", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 100


def test_names_from_runs_are_escaped(folder: Path, tmp_path: Path, torch: Any) -> None:
    run = tmp_path / EVIL
    make_run(run, 1, epochs=1)
    text = ll.report([run, folder / "groups-1"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img src=x" in text and "\x1b" not in text


def test_what_differs_is_said(folder: Path, tmp_path: Path) -> None:
    text = ll.report([folder / "more-0", folder / "more-4"], tmp_path / "report.html").read_text(encoding="utf-8")
    differs = text.partition("What differs</h2>")[2].partition("<h2>")[0]
    rows = re.findall(r'<th scope="row"[^>]*>(.*?)</th><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td>', differs)
    assert rows == [
        ("seed", "0", "more-0"), ("seed", "1", "more-4"),
        ("spec.optimizer.lr", "0.01", "more-0"), ("spec.optimizer.lr", "0.05", "more-4"),
    ]  # fmt: skip


def test_a_page_says_planned_and_applied_rates_and_norms(page_of: Any) -> None:
    text = page_of("12 groups").read_text(encoding="utf-8")
    for title in ("loss of each batch", "accuracy on the test set", "rates as planned", "rates as applied", "norms"):
        assert re.search(f'aria-label="[^"]*{title}', text), title
    assert 'aria-label="logged: $part$ &lt;b&gt;of the whole' in text
    assert "each of the 3 phases" in text and "torch" in text.partition("Made with")[2]
    rows = re.findall(r'data-label="rate (planned|applied)">(.*?)<', text)
    assert [value for kind, value in rows if kind == "planned"] == [value for kind, value in rows if kind == "applied"]


def test_without_matplotlib_the_tables_stay(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    text = ll.report(folder / "groups-1", tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No pictures" in text and "<table>" in text and "<svg" not in text
