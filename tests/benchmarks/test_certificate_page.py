"""docs/certificate.md shows what ``make certificate`` measured."""

from __future__ import annotations

from benchmarks.certificate.figures import BEGIN, END, PAGE, page_part, read_figures


def test_the_page_shows_the_figures_that_were_measured() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    measured = read_figures()
    assert shown.strip() == page_part(measured).strip()
    assert not [row for row in measured["honest"] if row.get("verdict") == "different"]
    assert all(row["found"] for row in measured["planted"])
