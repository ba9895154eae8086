"""The pages of plans and certificates in a browser: everything fits, nothing is clipped, no two texts overlap."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from layered_lr.parity.report import html_text as certificate_page
from layered_lr.plans.export import html_text as plan_page
from layered_lr.reports.figures import content_of, inlined
from layered_lr.reports.page import figure, page
from tests.support.browser import chromium, measured, printed
from tests.support.drawn_texts import SMALLEST_PIXELS, check_texts
from tests.support.page_cases import COUNTS, certificate_of, plan_of, search_of

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow

WIDTHS = (390, 600, 833, 1024, 1280)


def written(kind: str, count: int, folder: Path) -> Path:
    path = folder / f"{kind}.html"
    texts = {
        "plan": lambda: plan_page(plan_of(count)),
        "certificate": lambda: certificate_page(certificate_of(count, faulty=True)),
        "search": lambda: search_of(count).to_html(),
    }
    path.write_text(texts[kind](), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[int, Any]]:
    """A kind of page and a number of groups -> how large all is at each width; the browser starts once a page."""
    chromium()

    @cache
    def of(kind: str, count: int) -> dict[int, Any]:
        folder = tmp_path_factory.mktemp(f"{kind}-{count}")
        return measured(written(kind, count, folder), WIDTHS, folder)

    return of


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["plan", "certificate"])
def test_everything_fits_the_screen_and_can_be_read(measure: Any, kind: str, count: int, width: int) -> None:
    found = measure(kind, count)[width]
    assert found["client_width"] == width
    assert found["scroll_width"] <= width, "the page is wider than the screen"
    assert found["overflowing"] == [], "something is wider than its box, and cut or scrolled"
    assert found["smallest_font"] >= SMALLEST_PIXELS
    assert found["svgs"], "there is a drawing"
    for drawing in found["svgs"]:
        check_texts(drawing)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_search_fits_the_screen(measure: Any, width: int) -> None:
    test_everything_fits_the_screen_and_can_be_read(measure, "search", 12, width)


def test_the_answer_of_a_certificate_is_on_the_first_screen(measure: Any) -> None:
    tops = measure("certificate", 60)[1280]["top_of"]
    assert tops["h1"] < tops[".verdicts"] < 200
    assert tops[".verdicts"] < tops["table"] < tops["svg"]


def test_a_printed_plan_of_many_groups_is_a_few_pages(tmp_path: Path) -> None:
    chromium()
    pdf = printed(written("plan", 60, tmp_path), tmp_path)
    assert pdf.startswith(b"%PDF") and 2 <= pdf.count(b"/Type /Page\n") <= 6


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    faults = {"overlaps": (0.5, 0.52, 9), "clipped": (0.5, 0.99, 9), "small": (0.5, 0.7, 5)}
    drawings = []
    for name, (first, second, size) in faults.items():
        drawing = Figure(figsize=(4.0, 3.0))
        for height in (0.1, 0.2, 0.3, 0.4, first):
            drawing.text(0.1, height, f"line {height}")
        drawing.text(0.1, second, name, size=size)
        drawings.append(figure(inlined(content_of(drawing, ".svg").decode(), name, name)))
    wide = '<div style="overflow-x:auto"><div style="width:2000px">wide</div></div>'
    (tmp_path / "page.html").write_text(page("faults", "faults", wide + "".join(drawings)), encoding="utf-8")
    found = measured(tmp_path / "page.html", [390], tmp_path)[390]
    assert len(found["overflowing"]) == 1
    for drawing, said in zip(found["svgs"], ["overlaps", "clipped", "small"], strict=True):
        with pytest.raises(AssertionError, match=said):
            check_texts(drawing)
